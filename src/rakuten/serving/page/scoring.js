/* Scoring of a file's rows by the API, in parts that are small enough for one request. */

import { call } from "./api.js";
import { RANKS } from "./csv.js";
import { problemLine, t } from "./language.js";

const TRIES = 8; // of one part, while the service says it is busy
const TOP = 1 + RANKS.length; // codes of each row, for the files and the review desk
const CHARACTERS = 1_000_000; // of one part, about: long before a request is too large to be read
const PICTURE_BYTES = 4_000_000; // of one part, before base64; a larger picture is a part of its own
// Answers that may be the fault of one product in a part: the part is then halved until that one is found.
const OF_A_PRODUCT = new Set([413, 422]);
export const TOO_LARGE = "unusable: too large"; // as the API says it of a picture with too many pixels

/**
 * Score rows: `onResult(at, result)` is called for each, with a prediction or with {text} where there is none and why.
 * @param {object} job
 * @param {number[]} job.rows places in `products` and `pictures`
 * @param {{designation: string, description: string|null}[]} job.products
 * @param {({size: number, read: (most: number) => Promise<Blob>}|null)[]} job.pictures
 * @param {{batch: number, text_characters: number, picture_bytes: number}} job.limits of the API
 */
export async function scoreRows(job) {
  for (const part of parts(job)) {
    await scorePart(part, job);
    job.onProgress();
  }
}

function parts({ rows, products, pictures, limits }) {
  const found = [];
  let [characters, bytes] = [Infinity, Infinity];
  for (const at of rows) {
    const { designation, description } = products[at];
    const length = designation.length + (description ?? "").length;
    const size = pictures[at] && pictures[at].size <= limits.picture_bytes ? pictures[at].size : 0;
    const isFull = characters + length > CHARACTERS || (size > 0 && bytes > 0 && bytes + size > PICTURE_BYTES);
    if (isFull || found.at(-1).length === limits.batch) {
      found.push([]);
      [characters, bytes] = [0, 0];
    }
    found.at(-1).push(at);
    characters += length;
    bytes += size;
  }
  return found;
}

async function scorePart(places, job) {
  const { products, limits, onResult } = job;
  const most = limits.text_characters;
  const fit = places.filter((at) => {
    const { designation, description } = products[at];
    const fits = designation.length <= most && (description ?? "").length <= most;
    if (!fits) onResult(at, { text: () => t("row_long", { most }) });
    return fits;
  });
  const prepared = [];
  for (const at of fit) prepared.push({ at, ...(await prepare(at, job)) });
  if (prepared.length > 0) await scoreTogether(prepared, job);
}

/** What is sent of a row: {product, unread}; `unread` says why its picture is not sent, as the API would. */
async function prepare(at, { products, pictures, limits }) {
  const { designation, description } = products[at];
  const product = { designation, description, top_k: TOP };
  const picture = pictures[at];
  if (!picture) return { product };
  if (picture.size > limits.picture_bytes) return { product, unread: TOO_LARGE };
  try {
    return { product: { ...product, picture: await base64(await picture.read(limits.picture_bytes)) } };
  } catch {
    return { product, unread: "unusable: broken" }; // an archive's entry that does not unpack, a file that has gone
  }
}

function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result.slice(reader.result.indexOf(",") + 1)));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(blob);
  });
}

async function scoreTogether(prepared, job) {
  const { signal, onResult, onWait } = job;
  try {
    const { predictions, model_version } = await call("predict/batch", {
      body: { products: prepared.map(({ product }) => product) },
      signal,
      tries: TRIES,
      onWait,
    });
    prepared.forEach(({ at, unread }, index) => {
      onResult(at, { ...predictions[index], model_version, ...(unread && { picture: unread }) });
    });
  } catch (problem) {
    if (!OF_A_PRODUCT.has(problem.status)) throw problem;
    if (prepared.length === 1) {
      onResult(prepared[0].at, { text: () => problemLine(problem) });
      return;
    }
    const half = prepared.length >> 1;
    await scoreTogether(prepared.slice(0, half), job);
    await scoreTogether(prepared.slice(half), job);
  }
}
