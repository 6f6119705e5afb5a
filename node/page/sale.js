// The sale as its last status tells it, and where it stands by now.

export function read(body) {
  return {
    id: body.saleId,
    status: body.status,
    startsAt: Date.parse(body.startsAt),
    endsAt: Date.parse(body.endsAt),
    left: body.remainingStock,
    total: body.totalStock,
    isSoldOut: body.soldOut,
    name: body.productName,
    price: body.productPrice,
  };
}

/** `upcoming`, `active`, `paused`, `soldOut` or `ended`. Start and end come by the clock, and need no news. */
export function phaseOf({ status, startsAt, endsAt, isSoldOut }, now) {
  if (status === 'ended' || now >= endsAt) return 'ended';
  if (isSoldOut) return 'soldOut';
  if (status === 'upcoming' && now >= startsAt) return 'active';
  return status;
}

/** What a buyer can do then. */
export const TASKS = { active: 'buy', soldOut: 'find', ended: 'find' };
