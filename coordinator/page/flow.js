// Animates tokens on their way from one shard to another.

const FLIGHT_MS = 900;
const APART_MS = 45;
// A rush may move tokens between all shards at once. More dots than this would add no information.
const DOTS_PER_MOVE = 14;
const DOTS_MAX = 120;

const flow = document.querySelector('#flow');
const still = matchMedia('(prefers-reduced-motion: reduce)');

/** Animates tokens from one tank to another. */
export function fly(from, to, tokens) {
  if (still.matches || document.hidden) return;
  const dots = Math.min(DOTS_PER_MOVE, Math.ceil(Math.sqrt(tokens)) + 1, DOTS_MAX - flow.childElementCount);
  const path = arc(middle(from), middle(to));
  for (let number = 0; number < dots; number += 1) send(path, number * APART_MS);
}

function send(path, delay) {
  const dot = document.createElement('i');
  dot.style.offsetPath = `path("${path}")`;
  flow.append(dot);
  const flight = dot.animate(
    [
      { offsetDistance: '0%', opacity: 0, scale: 0.4 },
      { opacity: 1, scale: 1, offset: 0.15 },
      { opacity: 1, scale: 1, offset: 0.85 },
      { offsetDistance: '100%', opacity: 0, scale: 0.4 },
    ],
    { duration: FLIGHT_MS, delay, easing: 'cubic-bezier(0.45, 0, 0.3, 1)', fill: 'both' },
  );
  flight.finished.catch(() => {}).finally(() => dot.remove());
}

/** The middle of a tank's surface, in coordinates of the flow element. */
function middle(tank) {
  const [box, own] = [flow.getBoundingClientRect(), tank.getBoundingClientRect()];
  return { x: own.left - box.left + own.width / 2, y: Math.min(own.top - box.top, box.height - 8) };
}

function arc(start, end) {
  const top = Math.min(start.y, end.y) - Math.min(90, 24 + Math.abs(end.x - start.x) / 5);
  return `M ${start.x} ${start.y} Q ${(start.x + end.x) / 2} ${top} ${end.x} ${end.y}`;
}
