// Texts with the words that matched, shaded by similarity.

import { el } from "./dom.js";
import { CodePoints, codePointLength, cut, similarity } from "./text.js";

const WEAK = 0.2; // similarities below are not shaded, those from STRONG on as much as possible
const CLEAR = 0.5; // as WEAK, in the list of results: there only what stands out
const STRONG = 0.9;
const LEAST = 0.03; // of a shade that can be seen

export const strength = (value, weak = WEAK) => Math.min(Math.max((value - weak) / (STRONG - weak), 0), 1);

/** Where title and text begin in what was encoded, in characters; null for a part that is not in it. */
function places(hit) {
  const { text } = hit.explanation;
  if (hit.title.trim() && hit.text.trim()) {
    const both = text === `${hit.title} ${hit.text}`;
    return both ? { title: 0, text: codePointLength(hit.title) + 1 } : { title: null, text: null };
  }
  return { title: text === hit.title ? 0 : null, text: text === hit.text ? 0 : null };
}

/** Each word of the passage with the query word that is nearest to it: `[start, end, similarity, query word]`. */
function nearest({ matches, words, similarities }) {
  if (!similarities) return matches.map((one) => [one.start, one.end, one.similarity, one.query_word]);
  return words.map(([start, end], column) => {
    const row = similarities.reduce((best, values, at) => (values[column] > similarities[best][column] ? at : best), 0);
    return [start, end, similarities[row][column], matches[row].query_word];
  });
}

/** The words of `part` (title or text) that match: `{start, end, word, strength, told}` in its own characters, in order, apart. */
export function spansOf(hit, part) {
  if (!hit.explanation?.matches.length) return [];
  const begin = places(hit)[part];
  if (begin === null) return [];
  const length = codePointLength(hit[part]);
  const spans = [];
  for (const [first, last, value, word] of nearest(hit.explanation)) {
    const [start, end] = [first - begin, last - begin];
    const shade = strength(value, CLEAR) ** 2;
    if (start >= 0 && end <= length && shade > LEAST) spans.push({ start, end, word, strength: shade, told: `${cut(word, 40)} ${similarity(value)}` });
  }
  spans.sort((a, b) => a.start - b.start || b.strength - a.strength);
  return spans.filter((span, place) => place === 0 || span.start >= spans[place - 1].end);
}

/** Texts and marks of `[start, end)` of a text. */
export function marked(points, spans, start = 0, end = points.length) {
  const nodes = [];
  let at = start;
  for (const span of spans) {
    if (span.end <= start || span.start >= end) continue;
    const [from, to] = [Math.max(span.start, start), Math.min(span.end, end)];
    if (from > at) nodes.push(points.slice(at, from));
    nodes.push(el("mark", { vars: { s: span.strength.toFixed(2) }, title: span.told }, points.slice(from, to)));
    at = to;
  }
  if (at < end) nodes.push(points.slice(at, end));
  return nodes;
}

/** The part of a text of about `size` characters in which the query's words match best, from the start of a word. */
export function bestWindow(points, spans, size) {
  if (points.length <= size * 1.25) return [0, points.length];
  let best = [0, -1];
  for (const first of [{ start: 0 }, ...spans]) {
    const begin = Math.max(0, first.start - Math.floor(size / 6));
    const sum = matchedBetween(spans, begin, begin + size);
    if (sum > best[1] + 0.05) best = [begin, sum];
  }
  const start = afterBlank(points, Math.min(best[0], points.length - size));
  return [start, beforeBlank(points, Math.min(points.length, start + size))];
}

/** The best strength of each query word there, added up. */
function matchedBetween(spans, begin, end) {
  const words = new Map();
  for (const { start, end: last, word, strength: shade } of spans) {
    if (start >= begin && last <= end) words.set(word, Math.max(shade, words.get(word) ?? 0));
  }
  return [...words.values()].reduce((all, one) => all + one, 0);
}

function afterBlank(points, place) {
  if (place <= 0) return 0;
  const near = points.slice(place, place + 40).search(/\s/);
  return near < 0 ? place : place + near + 1;
}

function beforeBlank(points, place) {
  if (place >= points.length) return points.length;
  const near = points.slice(Math.max(0, place - 40), place);
  const blank = near.search(/\s\S*$/);
  return blank < 0 ? place : place - (codePointLength(near) - codePointLength(near.slice(0, blank)));
}

export const pointsOf = (text) => new CodePoints(text);
