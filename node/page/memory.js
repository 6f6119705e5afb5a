// What this browser remembers: who buys here, and the receipt of each sale. A browser that remembers nothing (a private
// window may refuse) still buys.

const USER = 'flashsale.user';
const TOKEN = 'flashsale.token';
const receiptOf = (sale) => `flashsale.receipt.${sale}`;

/** The e-mail or customer number that was typed last. */
export const user = () => read(localStorage, USER) ?? '';
export const keepUser = (user) => write(localStorage, USER, user);

/** `{orderId, purchasedAt, user}` of a sale, if there is one. */
export const receipt = (sale) => read(localStorage, receiptOf(sale));
export const keepReceipt = (sale, receipt) => write(localStorage, receiptOf(sale), receipt);
export const forgetReceipt = (sale) => write(localStorage, receiptOf(sale), null);

/** What the shop's sign-in handed over, for as long as this tab is open. */
export const token = () => read(sessionStorage, TOKEN);
export const keepToken = (token) => write(sessionStorage, TOKEN, token);

function read(storage, key) {
  try {
    return JSON.parse(storage.getItem(key));
  } catch {
    return null;
  }
}

function write(storage, key, value) {
  try {
    storage.setItem(key, JSON.stringify(value));
  } catch {
    // Full or refused.
  }
}
