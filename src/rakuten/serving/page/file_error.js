/** A file that cannot be read; `reason` is a key of texts.js, `values` fill its text. */
export class FileError extends Error {
  constructor(reason, values = {}) {
    super(reason);
    this.reason = reason;
    this.values = values;
  }
}
