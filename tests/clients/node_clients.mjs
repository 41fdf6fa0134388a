// The openai package for Node and Vercel's AI SDK against a running service: `make clients`.

import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";
import OpenAI from "openai";

const baseURL = process.env.VLIB_URL + "/v1";
const pixel =
  "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR4nGO4IyeHFTEMLQkAid1GAXiz9RcAAAAASUVORK5CYII=";
const picture = `data:image/png;base64,${pixel}`;

const client = new OpenAI({ baseURL, apiKey: "none" });
const messages = [
  {
    role: "user",
    content: [
      { type: "text", text: "What color is it?" },
      { type: "image_url", image_url: { url: picture } },
    ],
  },
];
const said = await client.chat.completions.create({ model: "pocket", messages, temperature: 0 });
messages.push(said.choices[0].message, { role: "user", content: "And what shape?" });
const whole = await client.chat.completions.create({ model: "pocket", messages, temperature: 0 });
const stream = await client.chat.completions.create({
  model: "pocket",
  messages,
  temperature: 0,
  stream: true,
  stream_options: { include_usage: true },
});
let text = "";
let usage;
for await (const piece of stream) {
  text += piece.choices[0]?.delta?.content ?? "";
  usage = piece.usage ?? usage;
}
assert.equal(text, whole.choices[0].message.content);
assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
console.log("right: openai for Node: second turn, streamed");
const response = await client.responses.create({ model: "pocket", input: "What is it?", temperature: 0 });
let streamed = "";
for await (const event of await client.responses.create({
  model: "pocket",
  input: "What is it?",
  temperature: 0,
  stream: true,
})) {
  if (event.type === "response.output_text.delta") streamed += event.delta;
}
assert.equal(streamed, response.output_text);
console.log("right: openai for Node: responses");

const vlibrary = createOpenAICompatible({ name: "vlibrary", baseURL });
const turns = [
  {
    role: "user",
    content: [
      { type: "text", text: "What color is it?" },
      { type: "image", image: pixel, mediaType: "image/png" },
    ],
  },
  { role: "assistant", content: said.choices[0].message.content },
  { role: "user", content: "And what shape?" },
];
const answer = await generateText({ model: vlibrary("pocket"), messages: turns, temperature: 0 });
assert.equal(answer.text, whole.choices[0].message.content);
let parts = "";
for await (const part of streamText({ model: vlibrary("pocket"), messages: turns, temperature: 0 }).textStream) {
  parts += part;
}
assert.equal(parts, answer.text);
console.log("right: Vercel AI SDK: second turn, whole and streamed");
