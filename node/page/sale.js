// The sale as of its last status, and its current phase.

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

/** Returns `upcoming`, `active`, `paused`, `soldOut` or `ended`. Start and end follow the clock and need no event. */
export function phaseOf({ status, startsAt, endsAt, isSoldOut }, now) {
  if (status === 'ended' || now >= endsAt) return 'ended';
  if (isSoldOut) return 'soldOut';
  if (status === 'upcoming' && now >= startsAt) return 'active';
  return status;
}

/** The action of a buyer in each phase. */
export const TASKS = { active: 'buy', soldOut: 'find', ended: 'find' };
