/* What the browser keeps. One that keeps nothing loses it with the page, and no error comes of it. */

const memory = new Map();

export function keep(name, value) {
  memory.set(name, value);
  try {
    localStorage.setItem(name, JSON.stringify(value));
  } catch {
    // as above
  }
}

export function kept(name, otherwise = null) {
  try {
    const text = localStorage.getItem(name);
    return text === null ? (memory.get(name) ?? otherwise) : JSON.parse(text);
  } catch {
    return memory.get(name) ?? otherwise;
  }
}

export function forget(name) {
  memory.delete(name);
  try {
    localStorage.removeItem(name);
  } catch {
    // as above
  }
}

/** All names that start so. */
export function keptNames(start) {
  const names = new Set(memory.keys());
  try {
    for (let at = 0; at < localStorage.length; at += 1) names.add(localStorage.key(at));
  } catch {
    // as above
  }
  return [...names].filter((name) => name.startsWith(start)).sort();
}
