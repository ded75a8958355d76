/* The products to come, with their pictures: what is shown next is here already. */

import { fetchPicture, fetchQueue } from "./requests.js";

const AHEAD = 3; // products that are ready behind the one that is shown
const MOST = 50; // that the service gives at once

/**
 * A product with its picture.
 * @typedef {{product: object, image: HTMLImageElement|null, isLoading: boolean, isLost: boolean}} Item
 */

let items = []; // the first is shown
let filter = {};
let fetching = null; // AbortController of the call that asks for more
let pictureCame = () => {};
let answered = new Set(); // ids of products decided since the service was last asked: it may give them again

/** Number of waiting products that match the filter, by the service's last word; null before it. */
export let waiting = null;

export function itemOf(product) {
  const item = { product, image: null, isLoading: false, isLost: false };
  loadPicture(item);
  return item;
}

/** Call `listener` with each item whose picture came, or turned out not to be there. */
export function onPicture(listener) {
  pictureCame = listener;
}

async function loadPicture(item) {
  if (!item.product.has_picture || item.image || item.isLost || item.isLoading) return;
  item.isLoading = true;
  try {
    const url = URL.createObjectURL(await fetchPicture(item.product.id));
    const image = new Image();
    image.src = url;
    await image.decode(); // so that it is painted at once when it is shown
    item.image = image;
  } catch (problem) {
    item.isLost = !(problem.passing || problem.code === "network"); // or it is asked for again
  } finally {
    item.isLoading = false;
  }
  pictureCame(item);
}

export function release(item) {
  if (item.image) URL.revokeObjectURL(item.image.src);
}

export const currentItem = () => items[0] ?? null;

/** Go on to the next product; returns what was shown. */
export function shiftItem() {
  const item = items.shift();
  if (item) answered.add(item.product.id);
  return item;
}

/** Show a product first: one that was undone, or chosen from a list. */
export function putFirst(item) {
  answered.delete(item.product.id);
  items = [item, ...items.filter((other) => other.product.id !== item.product.id)];
}

/** Drop what is here and take products by another filter. */
export function restart(wanted) {
  filter = wanted;
  for (const item of items) release(item);
  items = [];
  waiting = null;
  fetching?.abort();
  fetching = null;
}

/**
 * Ask for products until there are enough. Returns false if another call does that already.
 * @param {number[]} unsent ids of products whose decisions the service has not got: it gives them again
 */
export async function refill(unsent) {
  if (fetching) return false;
  if (items.length > AHEAD) return true;
  const mine = new AbortController();
  fetching = mine;
  answered = new Set();
  try {
    const told = await fetchQueue(filter, Math.min(MOST, AHEAD + 1 + unsent.length), mine.signal);
    waiting = told.waiting;
    items.forEach(loadPicture); // those that did not come while the service was away
    const known = new Set([...items.map((item) => item.product.id), ...unsent, ...answered]);
    items.push(...told.products.filter((product) => !known.has(product.id)).map(itemOf));
    return true;
  } finally {
    if (fetching === mine) fetching = null;
  }
}
