/* Several files at once, from a file input or a drop, folders with all that is in them. */

/**
 * Give [{file, path}], in the order of their paths, from an input, and from a drop on its label, to `take`, as a
 * promise; in a folder a path has a slash. It fails if a folder cannot be listed.
 */
export function takeFilesAndFolders(input, label, take) {
  input.addEventListener("change", () => {
    const given = [...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));
    input.value = ""; // so that the same file, mended, can be chosen again
    if (given.length > 0) take(Promise.resolve(inOrder(given)));
  });
  for (const [name, over] of [
    ["dragenter", true],
    ["dragover", true],
    ["dragleave", false],
    ["drop", false],
  ]) {
    label.addEventListener(name, (event) => {
      event.preventDefault();
      label.classList.toggle("over", over);
      if (name !== "drop") return;
      if (event.dataTransfer.files.length > 0) take(droppedFiles(event.dataTransfer)); // else it is a text or a link
    });
  }
}

async function droppedFiles(transfer) {
  // All at once: what was dropped is gone after the first wait.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (entries.length === 0) return [...transfer.files].map((file) => ({ file, path: file.name }));
  const found = await Promise.all(entries.map((entry) => filesIn(entry, "")));
  return inOrder(found.flat());
}

/** A browser lists a folder in whatever order its files are stored. */
function inOrder(given) {
  return given.sort((a, b) => (a.path < b.path ? -1 : 1));
}

async function filesIn(entry, folder) {
  const path = `${folder}${entry.name}`;
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => {
      entry.file(resolve, reject);
    });
    return [{ file, path }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => {
      reader.readEntries(resolve, reject);
    });
    if (some.length === 0) return found; // it gives a hundred at a time
    for (const one of some) found.push(...(await filesIn(one, `${path}/`)));
  }
}
