// How fast a sale sells, computed from the units sold over time.

// Length of the chart.
export const SECONDS = 180;
const SECOND_MS = 1_000;
// Window for the current rate: long enough to be steady, short enough to follow a rush.
const NOW_MS = 3_000;

let points = [];

/** Starts with the coordinator's history: `[[ms, sold], …]`, oldest first. */
export function begin(past) {
  points = [...past];
}

/** Adds the units sold by this time. */
export function add(time, sold) {
  if (points.length && time <= points.at(-1)[0]) return;
  points.push([time, sold]);
  const oldest = points.findIndex(([at]) => at >= time - (SECONDS + 2) * SECOND_MS);
  points.splice(0, oldest);
}

/** The current rate, in purchases per second. */
export function rate() {
  const [end, sold] = points.at(-1) ?? [0, 0];
  const recent = points.find(([at]) => at >= end - NOW_MS);
  if (!recent || recent[0] === end) return 0;
  return Math.max(0, ((sold - recent[1]) * SECOND_MS) / (end - recent[0]));
}

/** Purchases in each of the last seconds; seconds without data count as 0. */
export function perSecond() {
  const end = Math.floor((points.at(-1)?.[0] ?? 0) / SECOND_MS);
  const marks = Array.from({ length: SECONDS + 1 }, (_, index) => (end - SECONDS + index) * SECOND_MS);
  const sold = soldBy(marks);
  return sold.slice(1).map((by, index) => Math.max(0, by - sold[index]));
}

/** The units sold by each of these times, which are in order; interpolated between two points. */
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
