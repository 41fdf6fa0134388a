const REFRESH_MS = 3000;
const SHOWN = 20;
const place = (id) => document.getElementById(id);

/** An element with children or text; what comes from the server is only ever text. */
function element(name, content = [], attributes = {}) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...[content].flat());
  return made;
}

async function call(path, body) {
  const key = sessionStorage.getItem("key");
  const headers = { ...(key && { authorization: `Bearer ${key}` }) };
  const isFile = body instanceof File;
  if (body) headers["content-type"] = isFile ? "application/octet-stream" : "application/json";
  const response = await fetch(path, {
    headers,
    ...(body && { method: "POST", body: isFile ? body : JSON.stringify(body) }),
  }).catch(() => {
    throw new Error("The server cannot be reached");
  });
  place("access").hidden = response.status !== 401;
  // What stands in front of the server answers in pages.
  const found = await response.json().catch(() => ({}));
  if (response.ok) return found;
  const parts = (found.errors ?? []).map((one) => `${one.location}: ${one.message}`);
  throw new Error(parts.join("; ") || found.detail || `The server answered ${response.status}`);
}

const told = (error) => element("p", error.message, { className: "error" });

/** Fills a place, or says there why it cannot be filled. */
async function fill(id, make) {
  place(id).replaceChildren(...(await make().catch((error) => [told(error)])));
}

const drawn = {};

/** Shows what a path lists. What is as it was is left alone, with all that is opened or marked in it. */
async function list(id, path, make) {
  const found = await call(path).catch((error) => error);
  const text = found.message ?? JSON.stringify(found);
  if (drawn[id] === text) return;
  drawn[id] = text;
  place(id).replaceChildren(...(found instanceof Error ? [told(found)] : make(found)));
}

/** Makes these the options of a choice; what is chosen stays so where it is among them. */
function offer(select, options) {
  const chosen = select.value;
  select.replaceChildren(...options);
  if (options.some((one) => one.value === chosen)) select.value = chosen;
}

/** Fills a place with what a form asks for; until that is there, the form cannot be sent again. */
function onSubmit(form, id, make) {
  place(form).addEventListener("submit", async (event) => {
    event.preventDefault();
    const { elements } = event.target;
    const button = event.target.querySelector("button");
    button.disabled = true;
    await fill(id, () => make(elements));
    button.disabled = false;
  });
}

const percent = (share) => (share === null ? "–" : `${(100 * share).toFixed(1)} %`);
const nameOf = (vector) => `${vector.name}@${vector.version}`;

function scores(evaluations) {
  const heads = ["Data set", "Items", "With the vector", "95 % interval", "Zero-shot", "ICL", "kNN-ICL"];
  const rows = evaluations.map((one) => [
    `${one.dataset} (${one.split})`,
    String(one.items),
    percent(one.accuracy),
    `${percent(one.low)} to ${percent(one.high)}`,
    percent(one.zero_shot),
    percent(one.icl),
    percent(one.knn_icl),
  ]);
  const line = (cells, kind) => element("tr", cells.map((cell) => element(kind, cell)));
  return element("table", [line(heads, "th"), ...rows.map((row) => line(row, "td"))]);
}

async function details(vector) {
  const found = await call(`/vectors/${vector.id}`);
  const parts = [element("p", found.advice)];
  if (found.description) parts.unshift(element("p", found.description));
  if (found.evaluations.length) parts.push(scores(found.evaluations));
  if (found.overlaps.length)
    parts.push(element("p", `Looks the same to retrieval as ${found.overlaps.join(", ")}: prefer one of them.`));
  return parts;
}

function vectorEntry(vector) {
  const id = `vector-${vector.id}`;
  const names = [nameOf(vector), ...vector.aliases.map((alias) => `@${alias}`)].join(" ");
  const summary = element("summary", [`${names} `, element("span", vector.status, { className: "state" })]);
  const open = place(id)?.parentElement.open ?? false;
  const made = element("details", [summary, element("div", "...", { id })], { open });
  made.addEventListener("toggle", () => made.open && fill(id, () => details(vector)));
  return made;
}

/** What a request says of the backbone, where the server has several. */
function meant() {
  const select = place("backbone");
  return select.options.length > 1 ? { backbone: select.value } : {};
}

function backbones({ items }) {
  offer(place("backbone"), items.map((one) => element("option", one.name, { value: one.fingerprint })));
  place("backbones").hidden = items.length < 2;
}

function vectors({ items, next_cursor: more }) {
  const select = place("ask").elements.vector;
  const known = items.map((vector) => element("option", nameOf(vector), { value: vector.id }));
  offer(select, [select.options[0], ...known]);
  if (!items.length) return [element("p", "None yet. Train one on labelled pictures, or import a file.")];
  return [...items.map(vectorEntry), ...(more ? [element("p", `The newest ${SHOWN} are shown.`)] : [])];
}

function trainings({ items }) {
  if (!items.length) return [element("p", "None yet.")];
  return items.map((job) => {
    const kind = job.kind === "train" ? "" : ` (${job.kind})`;
    const parts = [`${job.name}${kind} `, element("span", job.state, { className: "state" })];
    if (job.waits_for) parts.push(element("p", `Waits for ${job.waits_for}.`));
    if (job.error) parts.push(element("p", job.error.message, { className: "error" }));
    if (job.state === "running" && job.progress?.num_steps) {
      const { step, num_steps: max } = job.progress;
      parts.push(element("progress", [], { max, value: step, ariaLabel: `Step of ${job.name}` }));
    }
    return element("div", parts, { className: "training" });
  });
}

/** Tells that work goes on, and for how long it has, until it ends. */
async function waiting(id, text, work) {
  const began = Date.now();
  // Not to be read out every second.
  const passed = element("span", [], { ariaLive: "off" });
  const tell = () => passed.replaceChildren(`${Math.round((Date.now() - began) / 1000)} s`);
  place(id).replaceChildren(element("p", [`${text}: `, passed]), element("progress", [], { ariaLabel: text }));
  tell();
  const timer = setInterval(tell, 1000);
  return work.finally(() => clearInterval(timer));
}

async function train({ vector, file, question }) {
  const name = vector.value;
  const asked = { name, ...meant() };
  const query = new URLSearchParams({ name, ...(question.value && { question: question.value }) });
  const sent = call(`/datasets?${query}`, file.files[0]);
  const dataset = await waiting("received", "Sending the file, then every row and picture is checked", sent);
  await call("/train", { ...asked, dataset: dataset.id });
  show();
  const { notes } = dataset.report;
  return [`Items: ${dataset.num_items}, pictures: ${dataset.num_images}.`, ...notes].map((text) => element("p", text));
}

function asDataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

function steeredBy(answer) {
  const names = answer.applied.map((one) => `${nameOf(one)} at strength ${one.strength}`);
  if (names.length) return `With ${names.join(", ")}`;
  return `No vector was found${answer.retrieval?.reason ? ` (${answer.retrieval.reason})` : ""}`;
}

/** The text of an answer, and what the server notes of it. */
const said = ({ text, notes }) => [text, ...notes].map((one) => element("dd", one));

async function answers(form) {
  place("answers").replaceChildren(element("dd", "..."));
  const [picture] = form.picture.files;
  const vector = form.vector.value;
  const asked = { prompt: form.question.value, images: [], ...meant() };
  if (picture) asked.images = [await asDataUrl(picture)];
  // One after the other: a large picture that is sent twice at once by a slow line comes too late.
  const plain = await call("/steer/generate", asked);
  const steered = await call("/steer/generate", { ...asked, vector });
  return [
    element("dt", "Without a vector"),
    ...said(plain),
    element("dt", steeredBy(steered)),
    ...said(steered),
  ];
}

/** Shows what the server has; vectors are there without a worker, too. */
async function show() {
  await call("/backbones").then(backbones, () => {});
  const query = new URLSearchParams({ limit: SHOWN, ...meant() });
  await Promise.all([list("vectors", `/vectors?${query}`, vectors), list("trainings", "/train?limit=10", trainings)]);
}

async function refresh() {
  await show();
  setTimeout(refresh, REFRESH_MS);
}

place("origin").textContent = window.location.origin;
onSubmit("ask", "answers", answers);
onSubmit("train", "received", train);
place("access").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", event.target.elements.key.value.trim());
  show();
});
place("backbone").addEventListener("change", show);
refresh();
