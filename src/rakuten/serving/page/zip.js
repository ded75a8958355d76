/* ZIP archives in and out, by the browser's own (de)compression. Entries are read one by one, when they are needed, and
   never beyond the size that the caller allows: a small archive may unpack to terabytes. */

import { FileError } from "./file_error.js";

const [LOCAL, CENTRAL, END] = [0x04034b50, 0x02014b50, 0x06054b50]; // signatures
const [END_64, LOCATOR_64] = [0x06064b50, 0x07064b50];
const [STORED, DEFLATED] = [0, 8];
const END_BYTES = 22;
const LONGEST_COMMENT = 65535;
const MOST_DIRECTORY_BYTES = 100_000_000;
const UTF_8 = 0x800; // flag of an entry's name
const ENCRYPTED = 1;
const DOS_DATE = (46 << 9) | (1 << 5) | 1; // of what is written: the bytes depend on the content alone

/**
 * The files of an archive: {name, size, packed, method, offset, encrypted}; folders are left out.
 * @param {Blob} blob
 */
export async function entriesOf(blob) {
  const { count, start, length } = await endOf(blob);
  if (length > MOST_DIRECTORY_BYTES || start + length > blob.size) throw new FileError("zip_broken");
  const view = await bytesOf(blob, start, length);
  const entries = [];
  for (let at = 0; entries.length < count;) {
    if (at + 46 > length || view.getUint32(at, true) !== CENTRAL) throw new FileError("zip_broken");
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((place) => view.getUint16(at + place, true));
    const end = at + 46 + nameLength + extraLength + commentLength;
    if (end > length) throw new FileError("zip_broken");
    entries.push(entryAt(view, at, nameLength, extraLength));
    at = end;
  }
  return entries.filter(({ name }) => !name.endsWith("/"));
}

function entryAt(view, at, nameLength, extraLength) {
  const flags = view.getUint16(at + 8, true);
  const name = new Uint8Array(view.buffer, view.byteOffset + at + 46, nameLength);
  const entry = {
    name: new TextDecoder(flags & UTF_8 ? "utf-8" : "latin1").decode(name).replaceAll("\\", "/"),
    size: view.getUint32(at + 24, true),
    packed: view.getUint32(at + 20, true),
    offset: view.getUint32(at + 42, true),
    crc: view.getUint32(at + 16, true),
    method: view.getUint16(at + 10, true),
    encrypted: Boolean(flags & ENCRYPTED),
  };
  const last = at + 46 + nameLength + extraLength;
  for (let field = at + 46 + nameLength; field + 4 <= last; field += 4 + view.getUint16(field + 2, true)) {
    if (view.getUint16(field, true) !== 1) continue; // only ZIP64's: the numbers that did not fit, in this order
    let place = field + 4;
    for (const key of ["size", "packed", "offset"]) {
      if (entry[key] !== 0xffffffff || place + 8 > last) continue;
      entry[key] = Number(view.getBigUint64(place, true));
      place += 8;
    }
  }
  return entry;
}

async function endOf(blob) {
  const length = Math.min(blob.size, END_BYTES + LONGEST_COMMENT);
  const view = await bytesOf(blob, blob.size - length, length);
  let at = length - END_BYTES;
  while (at >= 0 && view.getUint32(at, true) !== END) at -= 1;
  if (at < 0) throw new FileError("zip_broken");
  const found = {
    count: view.getUint16(at + 10, true),
    length: view.getUint32(at + 12, true),
    start: view.getUint32(at + 16, true),
  };
  if (at >= 20 && view.getUint32(at - 20, true) === LOCATOR_64) {
    const end = await bytesOf(blob, Number(view.getBigUint64(at - 12, true)), 56);
    if (end.getUint32(0, true) !== END_64) throw new FileError("zip_broken");
    const [count, size, start] = [32, 40, 48].map((place) => Number(end.getBigUint64(place, true)));
    return { count, length: size, start };
  }
  return found;
}

async function bytesOf(blob, start, length) {
  const bytes = await blob.slice(start, start + length).arrayBuffer();
  if (bytes.byteLength !== length) throw new FileError("zip_broken");
  return new DataView(bytes);
}

/** The bytes of an entry, at most `most`. */
export async function readEntry(blob, entry, most) {
  if (entry.encrypted) throw new FileError("zip_encrypted");
  if (entry.size > most) throw new FileError("zip_large", { name: entry.name });
  if (entry.method !== STORED && entry.method !== DEFLATED) throw new FileError("zip_broken");
  const head = await bytesOf(blob, entry.offset, 30);
  if (head.getUint32(0, true) !== LOCAL) throw new FileError("zip_broken");
  const start = entry.offset + 30 + head.getUint16(26, true) + head.getUint16(28, true);
  const packed = blob.slice(start, start + entry.packed);
  const stream = packed.stream();
  const unpacked = entry.method === STORED ? stream : stream.pipeThrough(new DecompressionStream("deflate-raw"));
  const bytes = await collect(unpacked, entry.size);
  if (bytes === null || crc32(bytes) !== entry.crc) throw new FileError("zip_broken");
  return bytes;
}

/** All bytes of a stream, which has `size` of them; null if it has not. */
async function collect(stream, size) {
  const bytes = new Uint8Array(size);
  const reader = stream.getReader();
  let at = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return at === size ? bytes : null;
      if (at + value.length > size) {
        await reader.cancel(); // it says that it is smaller than it is
        return null;
      }
      bytes.set(value, at);
      at += value.length;
    }
  } catch {
    return null; // not deflated as it says
  }
}

/** An archive of files {name: text}, compressed, as a Blob. */
export async function zip(files, type) {
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const [name, text] of Object.entries(files)) {
    const bytes = new TextEncoder().encode(text);
    const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate-raw"));
    const packed = new Uint8Array(await new Response(stream).arrayBuffer());
    const encoded = new TextEncoder().encode(name);
    // version, flags, method, time, date; checksum, sizes; lengths of the name and of what else there is
    const common = [
      [2, 20],
      [2, UTF_8],
      [2, DEFLATED],
      [2, 0],
      [2, DOS_DATE],
      [4, crc32(bytes)],
    ];
    common.push([4, packed.length], [4, bytes.length], [2, encoded.length], [2, 0]);
    const local = fields([[4, LOCAL], ...common]);
    directory.push(fields([[4, CENTRAL], [2, 20], ...common, [2, 0], [2, 0], [2, 0], [4, 0], [4, offset]]), encoded);
    parts.push(local, encoded, packed);
    offset += local.length + encoded.length + packed.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const count = directory.length / 2;
  const end = fields([
    [4, END],
    [2, 0],
    [2, 0],
    [2, count],
    [2, count],
    [4, size],
    [4, offset],
    [2, 0],
  ]);
  return new Blob([...parts, ...directory, end], { type });
}

/** Numbers as little-endian bytes; each is given as [bytes, number]. */
function fields(numbers) {
  const view = new DataView(new ArrayBuffer(numbers.reduce((sum, [bytes]) => sum + bytes, 0)));
  let at = 0;
  for (const [bytes, number] of numbers) {
    if (bytes === 2) view.setUint16(at, number, true);
    else view.setUint32(at, number, true);
    at += bytes;
  }
  return new Uint8Array(view.buffer);
}

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

function crc32(bytes) {
  let value = 0xffffffff;
  for (let at = 0; at < bytes.length; at += 1) value = CRC[(value ^ bytes[at]) & 0xff] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}
