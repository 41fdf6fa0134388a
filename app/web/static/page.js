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
  if (response.status === 401) place("access").hidden = false;
  // What stands in front of the server answers in pages.
  const found = await response.json().catch(() => ({}));
  if (response.ok) return found;
  const parts = (found.errors ?? []).map((one) => `${one.location}: ${one.message}`);
  throw new Error(parts.join("; ") || found.detail || `The server answered ${response.status}`);
}

/** Fills a place, or says there why it cannot be filled. */
async function fill(id, make) {
  try {
    place(id).replaceChildren(...(await make()));
  } catch (error) {
    place(id).replaceChildren(element("p", error.message, { className: "error" }));
  }
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
  const names = [nameOf(vector), ...vector.aliases.map((alias) => `@${alias}`)].join(" ");
  const made = element("details", [
    element("summary", [`${names} `, element("span", vector.status, { className: "state" })]),
    element("div", "...", { id: `vector-${vector.id}` }),
  ]);
  made.addEventListener("toggle", () => made.open && fill(`vector-${vector.id}`, () => details(vector)));
  return made;
}

/** What a request says of the backbone, where the server has several. */
function meant() {
  const select = place("backbone");
  return select.options.length > 1 ? { backbone: select.value } : {};
}

async function backbones() {
  const { items } = await call("/backbones");
  const served = items.map((one) => element("option", one.name, { value: one.fingerprint }));
  place("backbone").replaceChildren(...served);
  place("backbones").hidden = served.length < 2;
}

async function vectors() {
  const query = new URLSearchParams({ limit: SHOWN, ...meant() });
  const { items, next_cursor: more } = await call(`/vectors?${query}`);
  const known = items.map((vector) => element("option", nameOf(vector), { value: vector.id }));
  const select = place("ask").elements.vector;
  const chosen = select.value;
  select.replaceChildren(select.options[0], ...known);
  if (items.some((vector) => vector.id === chosen)) select.value = chosen;
  if (!items.length) return [element("p", "None yet. Train one on labelled pictures, or import a file.")];
  return [...items.map(vectorEntry), ...(more ? [element("p", `The newest ${SHOWN} are shown.`)] : [])];
}

let running = -1;

async function trainings() {
  const { items } = await call("/train?limit=10");
  const now = items.filter((job) => ["queued", "running"].includes(job.state)).length;
  // One that ended may have stored a vector.
  if (running > now) fill("vectors", vectors);
  running = now;
  if (!items.length) return [element("p", "None yet.")];
  return items.map((job) => {
    const kind = job.kind === "train" ? "" : ` (${job.kind})`;
    const parts = [`${job.name}${kind} `, element("span", job.state, { className: "state" })];
    if (job.waits_for) parts.push(element("p", `Waits for ${job.waits_for}.`));
    if (job.error) parts.push(element("p", job.error.message, { className: "error" }));
    if (job.state === "running" && job.progress?.num_steps)
      parts.push(element("progress", [], { max: job.progress.num_steps, value: job.progress.step }));
    return element("div", parts, { className: "training" });
  });
}

/** Tells that work goes on, and for how long it has, until it ends. */
async function waiting(id, text, work) {
  const began = Date.now();
  const passed = element("span");
  const tell = () => passed.replaceChildren(`${Math.round((Date.now() - began) / 1000)} s`);
  place(id).replaceChildren(element("p", [`${text}: `, passed]), element("progress"));
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
  fill("trainings", trainings);
  return [element("p", `Items: ${dataset.num_items}, pictures: ${dataset.num_images}.`)];
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
    element("dd", plain.text),
    element("dt", steeredBy(steered)),
    element("dd", steered.text),
  ];
}

/** Shows what the server has; vectors are there without a worker, too. */
async function show() {
  await backbones().catch(() => {});
  await fill("vectors", vectors);
}

async function refresh() {
  await fill("trainings", trainings);
  setTimeout(refresh, REFRESH_MS);
}

place("origin").textContent = window.location.origin;
onSubmit("ask", "answers", answers);
onSubmit("train", "received", train);
place("access").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", event.target.elements.key.value);
  event.target.hidden = true;
  show();
});
place("backbone").addEventListener("change", () => fill("vectors", vectors));
show();
refresh();
