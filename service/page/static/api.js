// The service, as this page asks it.

const LONGEST = 30000; // milliseconds: who was cut off from the service would wait for an answer for minutes

/** A refusal of the service, in its own words. */
export class Refusal extends Error {
  constructor(status, body) {
    super(body.actual ?? `status ${status}`);
    this.status = status;
    this.body = body;
  }
}

/** That nobody answers. */
const silence = () => new Refusal(0, {
  expected: "an answer of the service",
  actual: "none",
  remedy: "Look whether it runs; what it was doing goes on when it starts again.",
});

/** JSON of a path. Throws Refusal. */
export async function ask(path, options = {}) {
  const reply = await answered(path, { signal: AbortSignal.timeout(LONGEST), ...options });
  if (reply.status === 204) return null;
  return reply.json().catch(() => { throw silence(); }); // it ended while it answered
}

/** The reply of a path. Throws Refusal. */
export async function answered(path, options = {}) {
  let reply;
  try {
    reply = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw silence();
  }
  if (!reply.ok) throw new Refusal(reply.status, await words(reply));
  return reply;
}

async function words(reply) {
  try {
    return await reply.json();
  } catch {
    return { expected: "an answer", actual: `status ${reply.status}`, remedy: "Try it again." };
  }
}

/**
 * Send images as one job.
 * @param {File[]} files
 * @param {Object<string, string>} fields task, version, channels, samples, steps, seed, maps; empty ones are left out
 * @param {(share: number) => void} tell how much of it is sent
 * @returns {{done: Promise<Object>, stop: () => void}} the job; rejected with Refusal
 */
export function send(files, fields, tell) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) if (value !== "") form.append(name, value);
  for (const file of files) form.append("image", file, file.name);
  const request = new XMLHttpRequest(); // fetch does not tell how much is sent
  const done = new Promise((resolve, reject) => {
    request.upload.onprogress = (event) => event.lengthComputable && tell(event.loaded / event.total);
    request.onload = () => {
      let body = {};
      try {
        body = JSON.parse(request.responseText);
      } catch {
        body = { expected: "a job", actual: `status ${request.status}`, remedy: "Try it again." };
      }
      if (request.status < 300) resolve(body);
      else reject(new Refusal(request.status, body));
    };
    request.onerror = () =>
      reject(new Refusal(0, { expected: "the upload to arrive", actual: "a lost connection", remedy: "Send it again." }));
    request.onabort = () => resolve(null);
    request.open("POST", "/jobs");
    request.send(form);
  });
  return { done, stop: () => request.abort() };
}
