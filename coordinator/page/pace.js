// How fast a sale sells, from how much was sold by when.

// The last minutes, as they are drawn.
export const SECONDS = 180;
const SECOND_MS = 1_000;
// What counts as now: long enough to be steady, short enough to follow a rush.
const NOW_MS = 3_000;

let points = [];

/** Begins with what the coordinator remembers: `[[ms, sold], …]`, oldest first. */
export function begin(past) {
  points = [...past];
}

/** Takes in what was sold by then. */
export function add(time, sold) {
  if (points.length && time <= points.at(-1)[0]) return;
  points.push([time, sold]);
  const oldest = points.findIndex(([at]) => at >= time - (SECONDS + 2) * SECOND_MS);
  points.splice(0, oldest);
}

/** Purchases a second, now. */
export function rate() {
  const [end, sold] = points.at(-1) ?? [0, 0];
  const recent = points.find(([at]) => at >= end - NOW_MS);
  if (!recent || recent[0] === end) return 0;
  return Math.max(0, ((sold - recent[1]) * SECOND_MS) / (end - recent[0]));
}

/** Purchases in each of the last seconds; those that nobody saw count as none. */
export function perSecond() {
  const end = Math.floor((points.at(-1)?.[0] ?? 0) / SECOND_MS);
  const marks = Array.from({ length: SECONDS + 1 }, (_, index) => (end - SECONDS + index) * SECOND_MS);
  const sold = soldBy(marks);
  return sold.slice(1).map((by, index) => Math.max(0, by - sold[index]));
}

/** What was sold by each of these moments, which come in order; between two points as on a straight line. */
function soldBy(moments) {
  let next = 0;
  return moments.map((moment) => {
    while (next < points.length && points[next][0] < moment) next += 1;
    const [before, after] = [points[next - 1], points[next]];
    if (!before || !after) return (before ?? after ?? [0, 0])[1];
    const way = (moment - before[0]) / (after[0] - before[0]);
    return before[1] + way * (after[1] - before[1]);
  });
}
