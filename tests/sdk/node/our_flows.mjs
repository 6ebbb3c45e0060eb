/** What merchants do with our JavaScript module, flow by flow, each by its name. */

import assert from 'node:assert/strict';

import DefaultSDK, { PaymentsError, PaymentsSDK } from '../../../sdk/javascript/payments.js';
import { namedFlows, theShopperDecides } from './flows.mjs';

const card = { number: '4242424242424242', exp_month: 12, exp_year: 2034, cvc: '123' };
const challenged = { ...card, number: '4000002500003155' };
const price = { amount: 2000, currency: 'usd' };

/** The shopper, at the bank's page. */
const deciding = (decision) => (url) => theShopperDecides(url, decision);

const challengedIntent = async (payments, params = {}) => {
  const method = await payments.createPaymentMethod({ type: 'card', card: challenged });
  const intent = await payments.createPaymentIntent({
    ...price,
    payment_method: method.id,
    confirm: true,
    ...params,
  });
  assert.equal(intent.status, 'requires_action');
  return intent;
};

/** An API that answers what it is told to, and remembers what it was asked. */
const scripted = (...answers) => {
  const asked = [];
  const answer = async (url, request) => {
    asked.push({ url, ...request });
    const [status, body] = answers.length > 1 ? answers.shift() : answers[0];
    if (status === 0) throw new TypeError('fetch failed');
    return new Response(typeof body === 'string' ? body : JSON.stringify(body), { status });
  };
  const sdk = new PaymentsSDK('pk_test_x', { fetch: answer, retryWait: 1 });
  return { sdk, asked };
};

const refusal = (status, code) => [status, { error: { type: 'api_error', code, message: 'No.' } }];

const { flows, flow: named } = namedFlows();

/** A flow is given a page's module, and what its server has. */
function flow(name, run) {
  named(name, ({ apiBase, publishable, secret }) => {
    const options = { apiBase, pollInterval: 50 };
    const payments = new PaymentsSDK(publishable, options);
    return run({ payments, publishable, secret, options });
  });
}

export { flows };

flow('the example: a method, an intent, paid', async ({ payments }) => {
  const method = await payments.createPaymentMethod({ type: 'card', card });
  const intent = await payments.createPaymentIntent({
    ...price,
    payment_method: method.id,
    confirmation_method: 'automatic',
    confirm: true,
  });
  assert.equal(method.card.last4, '4242');
  assert.equal(intent.status, 'succeeded');
  assert.equal(intent.amount_received, 2000);
  assert.equal(DefaultSDK, PaymentsSDK);
});

flow('confirm in a second step, and read', async ({ payments }) => {
  const { client_secret: clientSecret } = await payments.createPaymentIntent(price);
  const method = await payments.createPaymentMethod({ type: 'card', card });
  const paid = await payments.confirmPayment(clientSecret, { payment_method: method.id });
  assert.equal(paid.status, 'succeeded');
  assert.deepEqual(await payments.retrievePaymentIntent(clientSecret), paid);
});

flow('an intent that the server made', async ({ payments, secret, options }) => {
  const server = new PaymentsSDK(secret, options);
  const made = await server.createPaymentIntent({ ...price, capture_method: 'manual' });
  const held = await payments.confirmPayment(made.client_secret, {
    payment_method_data: { type: 'card', card },
  });
  assert.equal(held.status, 'requires_capture');
});

flow('a decline is thrown, and another card pays', async ({ payments }) => {
  const intent = await payments.createPaymentIntent(price);
  const declined = payments.confirmPayment(intent.client_secret, {
    payment_method: 'pm_card_chargeDeclinedInsufficientFunds',
  });
  const error = await declined.then(assert.fail, (reason) => reason);
  assert.ok(error instanceof PaymentsError);
  assert.deepEqual(
    [error.status, error.type, error.code, error.decline_code],
    [402, 'card_error', 'card_declined', 'insufficient_funds'],
  );
  assert.equal(error.paymentIntent.status, 'requires_payment_method');
  assert.match(error.requestId, /^req_/);
  const paid = await payments.confirmPayment(intent.client_secret, {
    payment_method: 'pm_card_visa',
  });
  assert.equal(paid.status, 'succeeded');
});

flow('3-D Secure: the shopper approves', async ({ payments }) => {
  const intent = await challengedIntent(payments);
  const result = await payments.handleCardAction(intent.client_secret, {
    open: deciding('approve'),
  });
  assert.equal(result.paymentIntent.status, 'succeeded');
  assert.equal(result.error, undefined);
});

flow('3-D Secure: the shopper refuses', async ({ payments }) => {
  const intent = await challengedIntent(payments);
  const result = await payments.handleCardAction(intent.client_secret, {
    open: deciding('refuse'),
  });
  assert.equal(result.paymentIntent.status, 'requires_payment_method');
  assert.equal(result.error.code, 'authentication_required');
});

flow('3-D Secure: what was shown is closed', async ({ payments }) => {
  const intent = await challengedIntent(payments);
  let closed = 0;
  await payments.handleCardAction(intent.client_secret, {
    open: async (url) => {
      await deciding('approve')(url);
      return { close: () => { closed += 1; } };
    },
  });
  assert.equal(closed, 1);
});

flow('3-D Secure: nobody decides in time', async ({ payments }) => {
  const intent = await challengedIntent(payments);
  let closed = 0;
  const late = payments.handleCardAction(intent.client_secret, {
    open: () => ({ close: () => { closed += 1; } }),
    timeout: 150,
  });
  await assert.rejects(late, { code: 'authentication_timeout' });
  assert.equal(closed, 1);
});

flow('3-D Secure: what was shown was closed undecided', async ({ publishable, options }) => {
  const payments = new PaymentsSDK(publishable, { ...options, settleTimeout: 150 });
  const intent = await challengedIntent(payments);
  const gone = payments.handleCardAction(intent.client_secret, { open: () => ({ closed: true }) });
  const error = await gone.then(assert.fail, (reason) => reason);
  assert.equal(error.code, 'authentication_abandoned');
  assert.equal(error.paymentIntent.status, 'requires_action');
});

flow('3-D Secure: closed at once after the approval', async ({ payments }) => {
  const intent = await challengedIntent(payments);
  const result = await payments.handleCardAction(intent.client_secret, {
    open: async (url) => {
      await deciding('approve')(url);
      return { closed: true };
    },
  });
  assert.equal(result.paymentIntent.status, 'succeeded');
});

flow('3-D Secure: the shopper was sent back', async ({ payments }) => {
  const intent = await challengedIntent(payments);
  await deciding('refuse')(intent.next_action.redirect_to_url.url);
  const result = await payments.resumeCardAction(intent.client_secret);
  assert.equal(result.paymentIntent.status, 'requires_payment_method');
  assert.equal(result.error.code, 'authentication_required');
});

flow('3-D Secure: the program stops waiting', async ({ payments }) => {
  const intent = await challengedIntent(payments);
  const stopping = new AbortController();
  setTimeout(() => stopping.abort(), 100);
  const stopped = payments.handleCardAction(intent.client_secret, {
    open: () => {},
    signal: stopping.signal,
  });
  await assert.rejects(stopped, { name: 'AbortError' });
});

flow('3-D Secure: in Node it says that it has no window', async ({ payments }) => {
  const intent = await challengedIntent(payments);
  await assert.rejects(payments.handleCardAction(intent.client_secret), { code: 'no_window' });
});

flow('an intent that asks for nothing is answered as it is', async ({ payments }) => {
  const paid = await payments.createPaymentIntent({
    ...price, payment_method: 'pm_card_visa', confirm: true,
  });
  const result = await payments.handleCardAction(paid.client_secret, { open: assert.fail });
  assert.equal(result.paymentIntent.status, 'succeeded');
});

flow('a wrong secret is a 404', async ({ payments }) => {
  const intent = await payments.createPaymentIntent(price);
  const wrong = payments.retrievePaymentIntent(`${intent.id}_secret_x`);
  await assert.rejects(wrong, { status: 404, code: 'payment_intent_not_found' });
  await assert.rejects(payments.retrievePaymentIntent(intent.id), TypeError);
});

flow('a card that is none is refused', async ({ payments }) => {
  const wrong = { ...card, number: '4242424242424241' };
  await assert.rejects(payments.createPaymentMethod({ type: 'card', card: wrong }), {
    status: 402,
    code: 'incorrect_number',
  });
});

flow('a key that is none is refused', async ({ options }) => {
  const nobody = new PaymentsSDK('pk_test_nobodys', options);
  await assert.rejects(nobody.createPaymentIntent(price), { type: 'authentication_error' });
  assert.throws(() => new PaymentsSDK(''), TypeError);
});

flow('the same idempotency key is the same intent', async ({ payments }) => {
  const idempotencyKey = 'an order of mine';
  const first = await payments.createPaymentIntent(price, { idempotencyKey });
  const again = await payments.createPaymentIntent(price, { idempotencyKey });
  assert.deepEqual(again, first);
  const other = payments.createPaymentIntent({ ...price, amount: 1 }, { idempotencyKey });
  await assert.rejects(other, { status: 409, code: 'key_reused' });
});

flow('what was not answered is asked again under one key', async () => {
  for (const first of [
    [0], [500, '<html>'], refusal(503, 'bank_unavailable'), refusal(409, 'request_in_progress'),
  ]) {
    const { sdk, asked } = scripted(first, first, [201, { id: 'pi_1' }]);
    assert.deepEqual(await sdk.createPaymentIntent(price), { id: 'pi_1' });
    const keys = asked.map((one) => one.headers['Idempotency-Key']);
    assert.deepEqual([keys.length, new Set(keys).size], [3, 1]);
    assert.ok(keys[0]);
  }
});

flow('what was answered is not asked again', async () => {
  for (const [status, code] of [[402, 'card_declined'], [429, 'x'], [409, 'key_reused'], [502, 'x']]) {
    const { sdk, asked } = scripted(refusal(status, code));
    await assert.rejects(sdk.createPaymentIntent(price), { status, code });
    assert.equal(asked.length, 1);
  }
});

flow('it is given up after as many times as are set', async () => {
  const { sdk, asked } = scripted([0]);
  const unanswered = sdk.createPaymentIntent(price);
  await assert.rejects(unanswered, { status: null, type: 'api_connection_error' });
  assert.equal(asked.length, 3);
});

flow('what is no JSON is an error', async () => {
  const { sdk } = scripted([200, '<html>']);
  await assert.rejects(sdk.createPaymentIntent(price), { status: 200, type: 'api_error' });
});
