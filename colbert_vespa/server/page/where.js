// The filter that the panel makes, in the API's own filter language: choices are $in, ranges $gte and $lte.

const RANGE = ["$gte", "$lte"];

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

/** The values that are chosen of a field; none where its filter is not a choice. */
export function chosen(where, field) {
  const own = where[field];
  if (own === undefined) return [];
  if (!isObject(own)) return [own];
  const [name, ...more] = Object.keys(own);
  if (more.length) return [];
  if (name === "$in" && Array.isArray(own.$in)) return own.$in;
  return name === "$eq" ? [own.$eq] : [];
}

export function withChosen(where, field, values) {
  return withField(where, field, values.length ? { $in: values } : null);
}

/** `{$gte, $lte}` of a field, either of which may be missing. */
export function rangeOf(where, field) {
  const own = where[field];
  return isObject(own) && Object.keys(own).every((name) => RANGE.includes(name)) ? own : {};
}

export function withRange(where, field, range) {
  const kept = Object.fromEntries(Object.entries(range).filter(([, value]) => value !== null));
  return withField(where, field, Object.keys(kept).length ? kept : null);
}

/** null: without a filter on it. */
export function withField(where, field, condition) {
  const { [field]: _, ...others } = where;
  return condition === null ? others : { ...others, [field]: condition };
}

/** A line for each part: `[text, the filter without it]`. */
export function parts(where) {
  const out = [];
  for (const [field, condition] of Object.entries(where)) {
    const values = chosen(where, field);
    const range = rangeOf(where, field);
    if (values.length) {
      for (const value of values) {
        out.push([`${field}: ${String(value)}`, withChosen(where, field, values.filter((one) => one !== value))]);
      }
    } else if (Object.keys(range).length) {
      const { $gte: least = null, $lte: most = null } = range;
      const text = least === null ? `at most ${most}` : most === null ? `at least ${least}` : `${least} to ${most}`;
      out.push([`${field}: ${text}`, withField(where, field, null)]);
    } else {
      out.push([`${field}: ${JSON.stringify(condition)}`, withField(where, field, null)]);
    }
  }
  return out;
}
