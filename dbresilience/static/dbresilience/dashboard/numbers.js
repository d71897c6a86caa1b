// Numbers as people read them.

export const plain = (value) => (Number.isInteger(value) ? String(value) : value.toFixed(1));

export const rate = (value) => (value >= 10 || Number.isInteger(value) ? value.toFixed(0) : value.toFixed(1));

export const numberOf = (number, one) => `${number} ${one}${number === 1 ? "" : "s"}`;

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds >= 0.9995) return `${trimmed(seconds)} s`;
  if (seconds >= 0.0009995) return `${trimmed(seconds * 1000)} ms`;
  return `${trimmed(seconds * 1e6)} µs`;
}

export function age(seconds) {
  if (seconds < 120) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

const trimmed = (value) => String(Number(value.toPrecision(value >= 100 ? 3 : 2)));
