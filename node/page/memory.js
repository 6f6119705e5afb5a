// What this browser remembers. One that remembers nothing (a private window may refuse) still buys.

/** The e-mail or customer number that was typed last. */
export const user = entry('localStorage', 'flashsale.user');

/** What the shop's sign-in handed over, for as long as this tab is open. */
export const token = entry('sessionStorage', 'flashsale.token');

/** `{outcome, user, orderId, purchasedAt}` of a sale. */
export const receipt = (sale) => entry('localStorage', `flashsale.receipt.${sale}`);

function entry(storage, key) {
  const attempt = (use) => {
    try {
      return use(globalThis[storage]);
    } catch {
      return null;
    }
  };
  return {
    get: () => attempt((storage) => JSON.parse(storage.getItem(key))),
    set: (value) => attempt((storage) => storage.setItem(key, JSON.stringify(value))),
  };
}
