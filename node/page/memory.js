// Values stored in this browser. Buying also works when the browser stores nothing, as some private windows do.

/** The last e-mail or customer number entered. */
export const user = entry('localStorage', 'flashsale.user');

/** The token from the shop's sign-in, while this tab is open. */
export const token = entry('sessionStorage', 'flashsale.token');

/** The sign-in that this page has started in this tab: `{state, search}`. */
export const signIn = entry('sessionStorage', 'flashsale.signin');

/** The receipt of a sale: `{outcome, user, orderId, purchasedAt}`. */
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
