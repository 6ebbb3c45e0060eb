/** What merchants do with Stripe's own package for Node, flow by flow, each by its name. */

import assert from 'node:assert/strict';
import http from 'node:http';

import Stripe from 'stripe';

import { assertFields, fresh, namedFlows, once, refusal, theShopperDecides } from './flows.mjs';

const {
  StripeAPIError,
  StripeAuthenticationError,
  StripeCardError,
  StripeConnectionError,
  StripeError,
  StripeIdempotencyError,
  StripeInvalidRequestError,
  StripePermissionError,
} = Stripe.errors;

const card = { number: '4242424242424242', exp_month: 12, exp_year: 2034, cvc: '123' };
const mastercard = { ...card, number: '5200828282828210' };
const price = { amount: 2000, currency: 'usd', payment_method_types: ['card'] };
const visa = { payment_method: 'pm_card_visa' };
const challenged = 'pm_card_threeDSecure2Required';
const unexpectedState = { statusCode: 400, code: 'payment_intent_unexpected_state' };

/** A merchant's program: `stripe` on its server, `browser` with its publishable key. */
class Shop {
  constructor({ secret, publishable, apiBase, bankBase }) {
    this.apiBase = new URL(apiBase);
    this.bankBase = bankBase;
    this.secret = secret;
    this.stripe = this.client(secret);
    this.browser = this.client(publishable);
  }

  client(key, options = {}) {
    const { hostname: host, port } = this.apiBase;
    return new Stripe(key, { host, port, protocol: 'http', telemetry: false, ...options });
  }

  intent(params = {}, options = {}) {
    return this.stripe.paymentIntents.create({ ...price, ...params }, options);
  }

  async paid(params = {}) {
    const intent = await this.intent({ ...visa, confirm: true, ...params });
    assert.equal(intent.status, 'succeeded');
    return intent;
  }

  async held(params = {}) {
    const intent = await this.intent({
      ...visa, confirm: true, capture_method: 'manual', ...params,
    });
    assertFields(intent, { status: 'requires_capture', amount_capturable: 2000 });
    return intent;
  }

  asked(params = {}) {
    return this.intent({ payment_method: challenged, confirm: true, ...params });
  }

  method(changes = {}) {
    return this.stripe.paymentMethods.create({ type: 'card', card: { ...card, ...changes } });
  }

  customer(params = {}) {
    return this.stripe.customers.create({ email: `${fresh('ada')}@example.com`, ...params });
  }

  /** The intent once it is no more with the shopper. */
  become(intent, status) {
    const find = () => this.stripe.paymentIntents.retrieve(intent.id);
    return once(find, (one) => one.status === status);
  }

  async chargesOf(intent) {
    return (await this.stripe.charges.list({ payment_intent: intent.id })).data;
  }
}

const { flows, flow: named } = namedFlows();

function flow(name, ...rest) {
  named(name, (keys) => rest.at(-1)(new Shop(keys)));
}

export { flows };

const ids = (list) => list.map((each) => each.id);

/** Everything that a list has, page by page. */
async function all(pages) {
  const found = [];
  for await (const each of pages) found.push(each.id);
  return found;
}

const many = async (count, make) => {
  const made = [];
  while (made.length < count) made.push(await make());
  return made;
};

// --- customers ----------------------------------------------------------------------------------

flow('customer: create, retrieve, update, unset', async ({ stripe }) => {
  const made = await stripe.customers.create({
    name: 'Ada', email: 'ada@example.com', metadata: { tier: 'gold', since: '1843' },
  });
  assert.deepEqual(await stripe.customers.retrieve(made.id), made);

  const changed = await stripe.customers.update(made.id, {
    name: 'Ada L.', email: '', metadata: { tier: '', seat: '4' },
  });

  assertFields(changed, {
    name: 'Ada L.', email: null, metadata: { since: '1843', seat: '4' },
  });
  const cleared = await stripe.customers.update(made.id, { metadata: '' });
  assert.deepEqual(cleared.metadata, {});
});

flow('customer: null unsets a field and a metadata key', async ({ stripe }) => {
  const made = await stripe.customers.create({
    name: 'Ada', phone: '+441234', metadata: { tier: 'gold', seat: '4' },
  });

  const changed = await stripe.customers.update(made.id, { name: null, metadata: { tier: null } });

  assertFields(changed, { name: null, phone: '+441234', metadata: { seat: '4' } });
});

flow('customer: delete, then it says deleted', async (shop) => {
  const made = await shop.customer({ name: 'Ada' });

  const gone = await shop.stripe.customers.del(made.id);

  assertFields(gone, { id: made.id, object: 'customer', deleted: true });
  assert.equal((await shop.stripe.customers.retrieve(made.id)).deleted, true);
  assert.deepEqual((await shop.stripe.customers.list({ email: made.email })).data, []);
});

flow('customer: address, description, phone', async (shop) => {
  const made = await shop.customer({
    phone: '+441234', description: 'Counts', address: { line1: '1 Main St', country: 'GB' },
  });

  const found = await shop.stripe.customers.retrieve(made.id);

  assertFields(found, { phone: '+441234', description: 'Counts' });
  assertFields(found.address, { line1: '1 Main St', city: null });
});

flow('customers: list by email and by creation time', async (shop) => {
  const made = await many(3, () => shop.customer());
  const byEmail = await shop.stripe.customers.list({ email: made[1].email });
  assert.deepEqual(ids(byEmail.data), [made[1].id]);

  const created = { gte: made[0].created, lt: 9_000_000_000 };
  const ofToday = await shop.stripe.customers.list({ created });
  const ofBefore = await shop.stripe.customers.list({ created: { lt: made[0].created } });

  assert.deepEqual(ids(ofToday.data), ids(made).reverse());
  assert.deepEqual(ofBefore.data, []);
});

flow('customers: auto-paging, forwards and backwards', async (shop) => {
  const made = ids(await many(5, () => shop.customer()));

  const forwards = await all(shop.stripe.customers.list({ limit: 2 }));
  const backwards = await all(shop.stripe.customers.list({ limit: 2, ending_before: made[0] }));

  assert.deepEqual(forwards, made.toReversed());
  assert.deepEqual(backwards, made.slice(1));
});

flow('customers: auto-paging into an array, and until it is stopped', async (shop) => {
  const made = ids(await many(5, () => shop.customer())).reverse();

  const pages = () => shop.stripe.customers.list({ limit: 2 });
  const gathered = await pages().autoPagingToArray({ limit: 4 });
  const seen = [];
  await pages().autoPagingEach((each) => seen.push(each.id) < 3);

  assert.deepEqual(ids(gathered), made.slice(0, 4));
  assert.deepEqual(seen, made.slice(0, 3));
});

flow('customers: search by email', async (shop) => {
  const made = await shop.customer();

  const found = await shop.stripe.customers.search({ query: `email:'${made.email}'` });

  assertFields(found, { object: 'search_result', has_more: false });
  assert.deepEqual(ids(found.data), [made.id]);
});

// --- payment methods ----------------------------------------------------------------------------

flow('payment method: create, retrieve, never the number', async ({ stripe }) => {
  const made = await stripe.paymentMethods.create({
    type: 'card', card, billing_details: { name: 'Ada', email: 'a@b.example' },
  });

  assertFields(made.card, { brand: 'visa', last4: '4242', exp_year: 2034 });
  assert.equal(made.billing_details.name, 'Ada');
  assert.deepEqual(await stripe.paymentMethods.retrieve(made.id), made);
  assert.ok(!JSON.stringify(made).includes(card.number));
});

flow('payment method: equal cards have equal fingerprints', async (shop) => {
  const cards = [{}, { exp_month: 1 }, mastercard];
  const [one, again, other] = await Promise.all(cards.map((each) => shop.method(each)));

  assert.equal(one.card.fingerprint, again.card.fingerprint);
  assert.notEqual(one.card.fingerprint, other.card.fingerprint);
});

flow('payment method: update', async (shop) => {
  const made = await shop.method();

  const changed = await shop.stripe.paymentMethods.update(made.id, {
    card: { exp_month: 1, exp_year: 2036 },
    billing_details: { name: 'Grace' },
    metadata: { seat: '4' },
  });

  assertFields(changed.card, { exp_month: 1, exp_year: 2036 });
  assert.deepEqual([changed.billing_details.name, changed.metadata.seat], ['Grace', '4']);
});

flow('payment method: attach, list, detach, then it is of no use', async (shop) => {
  const { customers, paymentMethods } = shop.stripe;
  const [customer, method] = [await shop.customer(), await shop.method()];
  const attached = await paymentMethods.attach(method.id, { customer: customer.id });
  assert.equal(attached.customer, customer.id);
  const lists = [
    paymentMethods.list({ customer: customer.id, type: 'card' }),
    customers.listPaymentMethods(customer.id),
  ];
  for (const list of lists) assert.deepEqual(await all(list), [method.id]);
  assert.equal((await customers.retrievePaymentMethod(customer.id, method.id)).id, method.id);

  const detached = await paymentMethods.detach(method.id);

  assert.equal(detached.customer, null);
  assert.deepEqual((await customers.listPaymentMethods(customer.id)).data, []);
  const paying = shop.intent({ payment_method: method.id, confirm: true });
  await refusal(paying, StripeInvalidRequestError, { statusCode: 400 });
});

flow('payment method: by a token of a card', async (shop) => {
  const made = await shop.stripe.paymentMethods.create({ type: 'card', card: { token: 'tok_visa' } });

  assert.equal(made.card.last4, '4242');
  assert.equal((await shop.intent({ payment_method: made.id, confirm: true })).status, 'succeeded');
});

flow(
  'payment method: a test token is attached to a customer',
  async (shop) => {
    const customer = await shop.customer();

    const attached = await shop.stripe.paymentMethods.attach('pm_card_visa', {
      customer: customer.id,
    });

    assert.deepEqual([attached.customer, attached.card.last4], [customer.id, '4242']);
    assert.notEqual(attached.id, 'pm_card_visa');
  },
);

flow("payment method: a customer's card pays twice, the second time without its CVC", async (shop) => {
  const [customer, method] = [await shop.customer(), await shop.method()];
  await shop.stripe.paymentMethods.attach(method.id, { customer: customer.id });
  const terms = { customer: customer.id, payment_method: method.id, confirm: true };

  const first = await shop.intent(terms);
  const second = await shop.intent({ ...terms, off_session: true });

  assert.deepEqual([first.status, second.status], ['succeeded', 'succeeded']);
  assert.notEqual(first.latest_charge, second.latest_charge);
});

// --- payment intents ----------------------------------------------------------------------------

flow('intent: create, then confirm', async ({ stripe }) => {
  const metadata = { order_id: fresh('ORD') };
  const intent = await stripe.paymentIntents.create({
    ...price, description: 'Two books', metadata,
  });
  assertFields(intent, { status: 'requires_payment_method', metadata });
  assert.ok(intent.client_secret.startsWith(`${intent.id}_secret_`));

  const paid = await stripe.paymentIntents.confirm(intent.id, visa);

  assertFields(paid, { status: 'succeeded', amount_received: 2000 });
  assert.deepEqual(await stripe.paymentIntents.retrieve(intent.id), paid);
});

flow('intent: what is not set is null, and nothing is left out', async (shop) => {
  const intent = await shop.intent();

  const nullable = [
    'canceled_at', 'cancellation_reason', 'customer', 'description', 'last_payment_error',
    'latest_charge', 'next_action', 'on_behalf_of', 'payment_method', 'processing',
    'receipt_email', 'setup_future_usage', 'shipping', 'statement_descriptor', 'transfer_data',
  ];
  for (const field of nullable) assert.equal(intent[field], null, field);
  assertFields(intent, {
    object: 'payment_intent', livemode: false, metadata: {}, amount_received: 0,
    amount_capturable: 0, capture_method: 'automatic', payment_method_types: ['card'],
  });
});

flow('intent: created with a method, then confirmed with it', async (shop) => {
  const intent = await shop.intent({ payment_method: (await shop.method()).id });
  assert.equal(intent.status, 'requires_confirmation');

  const paid = await shop.stripe.paymentIntents.confirm(intent.id);

  assertFields(paid, { status: 'succeeded', payment_method: intent.payment_method });
});

flow('intent: create and confirm in one call', async (shop) => {
  const paid = await shop.paid({
    automatic_payment_methods: { enabled: true, allow_redirects: 'never' },
  });

  assert.equal(paid.currency, 'usd');
  assert.equal((await shop.stripe.charges.retrieve(paid.latest_charge)).captured, true);
});

flow('intent: with payment_method_data', async (shop) => {
  const paid = await shop.intent({ payment_method_data: { type: 'card', card }, confirm: true });

  assert.equal(paid.status, 'succeeded');
  const method = await shop.stripe.paymentMethods.retrieve(paid.payment_method);
  assert.equal(method.card.last4, '4242');
});

flow('intent: update before an attempt', async (shop) => {
  const intent = await shop.intent({ metadata: { a: '1', b: '2' } });

  const changed = await shop.stripe.paymentIntents.update(intent.id, {
    amount: 1500, description: 'One book', metadata: { a: '', c: '3' },
  });
  const paid = await shop.stripe.paymentIntents.confirm(intent.id, visa);

  assert.deepEqual(changed.metadata, { b: '2', c: '3' });
  assertFields(paid, { amount_received: 1500, description: 'One book' });
});

flow('intent: null unsets what was set', async (shop) => {
  const intent = await shop.intent({ description: 'Two books', metadata: { a: '1', b: '2' } });

  const changed = await shop.stripe.paymentIntents.update(intent.id, {
    description: null, metadata: { a: null },
  });

  assertFields(changed, { description: null, metadata: { b: '2' } });
});

flow('intent: shipping, receipt_email, statement_descriptor are kept', async (shop) => {
  const intent = await shop.intent({
    shipping: { name: 'Ada', address: { line1: '1 Main St', country: 'GB' } },
    receipt_email: 'ada@example.com',
    statement_descriptor_suffix: 'BOOKS',
    setup_future_usage: 'off_session',
  });

  const found = await shop.stripe.paymentIntents.retrieve(intent.id);

  assert.deepEqual([found.shipping.name, found.shipping.address.line1], ['Ada', '1 Main St']);
  assertFields(found, { receipt_email: 'ada@example.com', statement_descriptor_suffix: 'BOOKS' });
});

flow('intent: a currency without minor units', async (shop) => {
  const paid = await shop.paid({ amount: 500, currency: 'jpy' });

  assertFields(paid, { amount_received: 500, currency: 'jpy' });
});

flow('intent: manual capture', async (shop) => {
  const held = await shop.held();
  assert.equal((await shop.stripe.charges.retrieve(held.latest_charge)).captured, false);

  const taken = await shop.stripe.paymentIntents.capture(held.id);

  assertFields(taken, { status: 'succeeded', amount_received: 2000, amount_capturable: 0 });
});

flow('intent: partial capture, the rest is released', async (shop) => {
  const held = await shop.held();

  const taken = await shop.stripe.paymentIntents.capture(held.id, { amount_to_capture: 700 });

  assertFields(taken, { status: 'succeeded', amount: 2000, amount_received: 700 });
  assert.equal((await shop.stripe.charges.retrieve(taken.latest_charge)).amount_captured, 700);
  const again = shop.stripe.paymentIntents.capture(held.id);
  await refusal(again, StripeInvalidRequestError, unexpectedState);
});

flow('intent: capture of more than is held is refused, and takes nothing', async (shop) => {
  const held = await shop.held();

  const greedy = shop.stripe.paymentIntents.capture(held.id, { amount_to_capture: 2001 });

  await refusal(greedy, StripeInvalidRequestError, {
    code: 'amount_too_large', param: 'amount_to_capture',
  });
  const found = await shop.stripe.paymentIntents.retrieve(held.id);
  assert.equal(found.status, 'requires_capture');
});

flow('intent: capture and cancel with expand=latest_charge show the charge of now', async (shop) => {
  const { paymentIntents } = shop.stripe;
  const params = { expand: ['latest_charge'] };

  const taken = await paymentIntents.capture((await shop.held()).id, params);
  const gone = await paymentIntents.cancel((await shop.held()).id, params);

  assertFields(taken.latest_charge, { captured: true, amount_captured: 2000 });
  assertFields(gone.latest_charge, { captured: false, refunded: true });
});

flow('intent: metadata and description of a paid one are updated', async (shop) => {
  const paid = await shop.paid({ metadata: { a: '1' } });

  const changed = await shop.stripe.paymentIntents.update(paid.id, {
    metadata: { b: '2' }, description: 'Two books',
  });

  assertFields(changed, {
    metadata: { a: '1', b: '2' }, description: 'Two books', status: 'succeeded',
  });
});

flow('intent: the amount of a paid one stays', async (shop) => {
  const paid = await shop.paid();

  const change = shop.stripe.paymentIntents.update(paid.id, { amount: 1 });

  await refusal(change, StripeInvalidRequestError, { statusCode: 400 });
  assert.equal((await shop.stripe.paymentIntents.retrieve(paid.id)).amount, 2000);
});

flow('intent: capture_method automatic_async pays at once', async (shop) => {
  assert.equal((await shop.paid({ capture_method: 'automatic_async' })).amount_received, 2000);
});

flow('intent: confirm of a paid one is refused, and charges nothing', async (shop) => {
  const paid = await shop.paid();

  const again = shop.stripe.paymentIntents.confirm(paid.id, visa);

  const error = await refusal(again, StripeInvalidRequestError, unexpectedState);
  assert.equal(error.payment_intent?.id ?? paid.id, paid.id);
  assert.equal((await shop.chargesOf(paid)).length, 1);
});

flow('intent: two confirmations at once charge once', async (shop) => {
  const intent = await shop.intent();
  const confirm = () => shop.stripe.paymentIntents.confirm(intent.id, visa);

  const settled = await Promise.allSettled([confirm(), confirm()]);

  const refused = settled.filter((each) => each.status === 'rejected');
  for (const { reason } of refused) assert.ok(reason instanceof StripeInvalidRequestError);
  assert.ok(refused.length < 2);
  assert.equal((await shop.chargesOf(intent)).length, 1);
  assert.equal((await shop.stripe.paymentIntents.retrieve(intent.id)).amount_received, 2000);
});

flow('intent: cancel before an attempt', async (shop) => {
  const intent = await shop.intent();

  const gone = await shop.stripe.paymentIntents.cancel(intent.id, {
    cancellation_reason: 'abandoned',
  });

  assertFields(gone, { status: 'canceled', cancellation_reason: 'abandoned' });
  assert.ok(gone.canceled_at >= gone.created);
  const late = shop.stripe.paymentIntents.confirm(intent.id, visa);
  await refusal(late, StripeInvalidRequestError, unexpectedState);
});

flow('intent: cancel releases what was held', async (shop) => {
  const held = await shop.held();

  const gone = await shop.stripe.paymentIntents.cancel(held.id);

  assertFields(gone, { status: 'canceled', amount_capturable: 0 });
  const charge = await shop.stripe.charges.retrieve(held.latest_charge);
  assertFields(charge, { captured: false, refunded: true });
});

flow('intent: a paid one is not canceled', async (shop) => {
  const paid = await shop.paid();

  const cancel = shop.stripe.paymentIntents.cancel(paid.id);

  await refusal(cancel, StripeInvalidRequestError, unexpectedState);
  assert.equal((await shop.stripe.paymentIntents.retrieve(paid.id)).status, 'succeeded');
});

flow('intents: list by customer, auto-paging', async (shop) => {
  const customer = await shop.customer();
  const made = ids(await many(3, () => shop.intent({ customer: customer.id })));
  await shop.intent();

  const pages = shop.stripe.paymentIntents.list({ customer: customer.id, limit: 2 });

  assert.deepEqual(await all(pages), made.toReversed());
});

flow('intents: search by metadata', async (shop) => {
  const order = fresh('ORD');
  const made = await shop.intent({ metadata: { order_id: order } });

  const query = `metadata['order_id']:'${order}'`;
  const found = await all(shop.stripe.paymentIntents.search({ query }));

  assert.deepEqual(found, [made.id]);
});

flow('intents: search goes on from page to page', async (shop) => {
  const order = fresh('ORD');
  const made = ids(await many(3, () => shop.intent({ metadata: { order_id: order } })));

  const query = `metadata['order_id']:'${order}'`;
  const found = await all(shop.stripe.paymentIntents.search({ query, limit: 2 }));

  assert.deepEqual(found.sort(), made.sort());
});

flow('intent: expand, dotted, on a retrieve and on a list', async (shop) => {
  const customer = await shop.customer({ name: 'Ada' });
  const paid = await shop.paid({
    customer: customer.id, expand: ['latest_charge.customer', 'customer'],
  });
  assert.deepEqual([paid.customer.name, paid.latest_charge.customer.id], ['Ada', customer.id]);

  const found = await shop.stripe.paymentIntents.retrieve(paid.id, { expand: ['latest_charge'] });
  const page = await shop.stripe.paymentIntents.list({ expand: ['data.customer'] });

  assert.equal(found.latest_charge.payment_intent, paid.id);
  assert.equal(page.data[0].customer.name, 'Ada');
  const nothing = shop.stripe.paymentIntents.retrieve(paid.id, { expand: ['nothing'] });
  await refusal(nothing, StripeInvalidRequestError, { param: 'expand[0]' });
});

flow('intent: expand of what does not exist is refused before the bank is asked', async (shop) => {
  const intent = await shop.intent();

  const confirm = shop.stripe.paymentIntents.confirm(intent.id, { ...visa, expand: ['nothing'] });

  await refusal(confirm, StripeInvalidRequestError, { param: 'expand[0]' });
  assert.deepEqual(await shop.chargesOf(intent), []);
});

flow(
  'intent: capture_method manual given with the confirmation holds, and does not take',
  async (shop) => {
    const intent = await shop.intent();

    const held = await shop.stripe.paymentIntents.confirm(intent.id, {
      ...visa, capture_method: 'manual',
    });

    assertFields(held, { status: 'requires_capture', amount_received: 0 });
  },
);

flow('intent: metadata given with a capture is kept', async (shop) => {
  const held = await shop.held();

  const taken = await shop.stripe.paymentIntents.capture(held.id, { metadata: { box: '7' } });

  assert.deepEqual(taken.metadata, { box: '7' });
});

flow("intent: another customer's card is refused", async (shop) => {
  const [owner, other, method] = [
    await shop.customer(), await shop.customer(), await shop.method(),
  ];
  await shop.stripe.paymentMethods.attach(method.id, { customer: owner.id });

  const paying = shop.intent({ customer: other.id, payment_method: method.id, confirm: true });

  await refusal(paying, StripeInvalidRequestError, { statusCode: 400 });
});

// --- declines -----------------------------------------------------------------------------------

/** The package says '' where the answer has no decline code. */
function declinedThenPaid(token, code, declineCode = '') {
  return async (shop) => {
    const { paymentIntents, charges } = shop.stripe;
    const intent = await shop.intent();

    const confirm = paymentIntents.confirm(intent.id, { payment_method: token });

    const error = await refusal(confirm, StripeCardError, {
      type: 'StripeCardError', rawType: 'card_error', statusCode: 402, code,
      decline_code: declineCode,
    });
    assert.match(error.requestId, /^req_/);
    assert.equal(error.payment_intent.status, 'requires_payment_method');
    assert.equal(error.payment_intent.last_payment_error.code, code);
    assert.equal((await charges.retrieve(error.charge)).status, 'failed');
    const paid = await paymentIntents.confirm(intent.id, visa);
    assertFields(paid, { status: 'succeeded', last_payment_error: null });
    const statuses = (await shop.chargesOf(intent)).map((each) => each.status);
    assert.deepEqual(statuses, ['succeeded', 'failed']);
  };
}

flow(
  'decline: pm_card_chargeDeclined, then another card on the same intent',
  declinedThenPaid('pm_card_chargeDeclined', 'card_declined', 'generic_decline'),
);
flow(
  'decline: pm_card_visa_chargeDeclined, then another card on the same intent',
  declinedThenPaid('pm_card_visa_chargeDeclined', 'card_declined', 'generic_decline'),
);
flow(
  'decline: pm_card_chargeDeclinedInsufficientFunds, then another card on the same intent',
  declinedThenPaid(
    'pm_card_chargeDeclinedInsufficientFunds', 'card_declined', 'insufficient_funds',
  ),
);
flow(
  'decline: pm_card_visa_chargeDeclinedInsufficientFunds, then another card on the same intent',
  declinedThenPaid(
    'pm_card_visa_chargeDeclinedInsufficientFunds', 'card_declined', 'insufficient_funds',
  ),
);
flow(
  'decline: pm_card_chargeDeclinedExpiredCard, then another card on the same intent',
  declinedThenPaid('pm_card_chargeDeclinedExpiredCard', 'expired_card'),
);
flow(
  'decline: pm_card_chargeDeclinedIncorrectCvc, then another card on the same intent',
  declinedThenPaid('pm_card_chargeDeclinedIncorrectCvc', 'incorrect_cvc'),
);
flow(
  'decline: pm_card_chargeDeclinedProcessingError, then another card on the same intent',
  declinedThenPaid('pm_card_chargeDeclinedProcessingError', 'processing_error'),
);

flow(
  'decline: create and confirm in one call, then retry on the intent of the error',
  async (shop) => {
    const declined = shop.intent({ payment_method: 'pm_card_chargeDeclined', confirm: true });

    const error = await refusal(declined, StripeCardError, { code: 'card_declined' });

    const paid = await shop.stripe.paymentIntents.confirm(error.payment_intent.id, visa);
    assert.equal(paid.status, 'succeeded');
  },
);

flow('decline: a number that is none, before the bank is asked', async (shop) => {
  const method = shop.method({ number: '4242424242424241' });

  await refusal(method, StripeCardError, { statusCode: 402, code: 'incorrect_number' });
});

flow('decline: an expired card, before the bank is asked', async (shop) => {
  const method = shop.method({ exp_year: 2020 });

  await refusal(method, StripeCardError, { statusCode: 402, code: 'expired_card' });
});

// --- 3-D Secure ---------------------------------------------------------------------------------

flow('3-D Secure: the shopper approves, and the intent goes on by itself', async (shop) => {
  const back = 'https://shop.example/done?a=1';
  const intent = await shop.asked({ return_url: back });
  assert.equal(intent.status, 'requires_action');
  assert.equal(intent.next_action.type, 'redirect_to_url');
  assert.equal(intent.next_action.redirect_to_url.return_url, back);

  const answer = await theShopperDecides(intent.next_action.redirect_to_url.url, 'approve');

  assert.equal(answer.headers.get('location'), `${back}&payment_intent=${intent.id}`);
  const after = await shop.become(intent, 'succeeded');
  assertFields(after, { amount_received: 2000, next_action: null });
});

flow('3-D Secure: the shopper refuses, and another card pays', async (shop) => {
  const intent = await shop.intent();
  const asked = await shop.stripe.paymentIntents.confirm(intent.id, {
    payment_method: challenged,
  });

  await theShopperDecides(asked.next_action.redirect_to_url.url, 'refuse');

  const after = await shop.become(intent, 'requires_payment_method');
  assert.equal(after.last_payment_error.code, 'authentication_required');
  const paid = await shop.stripe.paymentIntents.confirm(intent.id, visa);
  assert.equal(paid.status, 'succeeded');
});

flow('3-D Secure: with manual capture it is held, then captured', async (shop) => {
  const intent = await shop.asked({ capture_method: 'manual' });

  await theShopperDecides(intent.next_action.redirect_to_url.url, 'approve');

  await shop.become(intent, 'requires_capture');
  assert.equal((await shop.stripe.paymentIntents.capture(intent.id)).status, 'succeeded');
});

flow(
  '3-D Secure: given up while the shopper is asked',
  async (shop) => {
    const intent = await shop.asked();

    const gone = await shop.stripe.paymentIntents.cancel(intent.id);

    assert.equal(gone.status, 'canceled');
  },
);

// --- charges, refunds, balance, events ----------------------------------------------------------

flow('charge: retrieve and list', async (shop) => {
  const customer = await shop.customer();
  const paid = await shop.paid({ customer: customer.id });
  const charge = await shop.stripe.charges.retrieve(paid.latest_charge, {
    expand: ['payment_intent'],
  });
  assertFields(charge, { paid: true, amount: 2000 });
  assert.equal(charge.payment_intent.id, paid.id);
  assert.equal(charge.payment_method_details.card.last4, '4242');

  const found = await shop.stripe.charges.list({ customer: customer.id });

  assert.deepEqual(ids(found.data), [paid.latest_charge]);
});

flow('charges: search by customer', async (shop) => {
  const customer = await shop.customer();
  const paid = await shop.paid({ customer: customer.id });

  const found = await shop.stripe.charges.search({ query: `customer:'${customer.id}'` });

  assert.deepEqual(ids(found.data), [paid.latest_charge]);
});

flow('refund: all of it, by payment_intent', async (shop) => {
  const paid = await shop.paid();

  const refund = await shop.stripe.refunds.create({
    payment_intent: paid.id, reason: 'requested_by_customer', metadata: { a: '1' },
  });

  assertFields(refund, {
    status: 'succeeded', amount: 2000, currency: 'usd', charge: paid.latest_charge,
    payment_intent: paid.id,
  });
  assert.deepEqual(await shop.stripe.refunds.retrieve(refund.id), refund);
  assert.equal((await shop.stripe.charges.retrieve(paid.latest_charge)).refunded, true);
});

flow('refund: in parts, by charge, and never more than was paid', async (shop) => {
  const charge = (await shop.paid()).latest_charge;
  for (const amount of [500, 700]) await shop.stripe.refunds.create({ charge, amount });

  const greedy = shop.stripe.refunds.create({ charge, amount: 801 });

  await refusal(greedy, StripeInvalidRequestError, { statusCode: 400 });
  const found = await shop.stripe.charges.retrieve(charge);
  assertFields(found, { amount_refunded: 1200, refunded: false });
  assert.equal((await shop.stripe.refunds.create({ charge })).amount, 800);
});

flow('refund: two at once never give back more than was paid', async (shop) => {
  const charge = (await shop.paid()).latest_charge;
  const refund = () => shop.stripe.refunds.create({ charge, amount: 1500 });

  const settled = await Promise.allSettled([refund(), refund()]);

  const refused = settled.filter((each) => each.status === 'rejected');
  assert.equal(refused.length, 1);
  assert.ok(refused[0].reason instanceof StripeInvalidRequestError);
  assert.equal((await shop.stripe.charges.retrieve(charge)).amount_refunded, 1500);
});

flow('refund: of what is refunded says charge_already_refunded', async (shop) => {
  const paid = await shop.paid();
  await shop.stripe.refunds.create({ payment_intent: paid.id });

  const again = shop.stripe.refunds.create({ payment_intent: paid.id });

  await refusal(again, StripeInvalidRequestError, { code: 'charge_already_refunded' });
});

flow(
  'refund: its metadata is updated',
  async (shop) => {
    const refund = await shop.stripe.refunds.create({ payment_intent: (await shop.paid()).id });

    const changed = await shop.stripe.refunds.update(refund.id, { metadata: { ticket: '4711' } });

    assert.equal(changed.metadata.ticket, '4711');
  },
);

flow('refunds: list by charge and by payment_intent, auto-paging', async (shop) => {
  const paid = await shop.paid();
  const part = () => shop.stripe.refunds.create({ payment_intent: paid.id, amount: 100 });
  const made = ids(await many(3, part)).reverse();
  await shop.stripe.refunds.create({ payment_intent: (await shop.paid()).id });

  const byCharge = await all(shop.stripe.refunds.list({ charge: paid.latest_charge, limit: 2 }));
  const byIntent = await all(shop.stripe.refunds.list({ payment_intent: paid.id }));

  assert.deepEqual([byCharge, byIntent], [made, made]);
});

flow(
  'refund: expand its charge',
  async (shop) => {
    const paid = await shop.paid();

    const refund = await shop.stripe.refunds.create({
      payment_intent: paid.id, amount: 300, expand: ['charge', 'payment_intent'],
    });

    assert.equal(refund.charge.amount_refunded, 300);
    assert.equal(refund.payment_intent.id, paid.id);
  },
);

flow('balance: what was paid and given back', async (shop) => {
  const paid = await shop.paid();
  await shop.stripe.refunds.create({ payment_intent: paid.id, amount: 500 });

  const { available } = await shop.stripe.balance.retrieve();

  assert.equal(available.length, 1);
  assertFields(available[0], { amount: 1500, currency: 'usd' });
});

flow(
  'balance transactions: list',
  async (shop) => {
    const paid = await shop.paid();

    const { data: [found] } = await shop.stripe.balanceTransactions.list();

    assertFields(found, { amount: 2000, source: paid.latest_charge });
  },
);

flow("events: a payment's are listed and retrieved", async (shop) => {
  const paid = await shop.paid();

  const { data: [found] } = await shop.stripe.events.list({ type: 'payment_intent.succeeded' });

  assertFields(found, { object: 'event', type: 'payment_intent.succeeded', livemode: false });
  assert.equal(found.data.object.id, paid.id);
  assert.deepEqual((await shop.stripe.events.retrieve(found.id)).data, found.data);
});

flow('events: of several types, with the idempotency key of their cause', async (shop) => {
  const idempotencyKey = fresh('key');
  const paid = await shop.intent({ ...visa, confirm: true }, { idempotencyKey });

  const types = ['payment_intent.succeeded', 'charge.succeeded'];
  const { data } = await shop.stripe.events.list({ types });

  assert.deepEqual(data.map((each) => each.type).sort(), types.toSorted());
  for (const event of data) assert.equal(event.request.idempotency_key, idempotencyKey);
  assert.ok(data.some((event) => event.data.object.id === paid.latest_charge));
});

flow(
  'webhook endpoint: create, list, update, delete',
  async ({ stripe: { webhookEndpoints } }) => {
    const made = await webhookEndpoints.create({
      url: 'https://shop.example/hooks', enabled_events: ['payment_intent.succeeded'],
    });
    assert.match(made.secret, /^whsec_/);
    await webhookEndpoints.update(made.id, { enabled_events: ['*'] });

    const { data: [found] } = await webhookEndpoints.list();

    assertFields(found, { id: made.id, enabled_events: ['*'] });
    assert.equal((await webhookEndpoints.del(made.id)).deleted, true);
  },
);

// --- idempotency, retries -----------------------------------------------------------------------

flow('idempotency: the same call again is the same answer, and one charge', async (shop) => {
  const options = { idempotencyKey: fresh('key') };

  const first = await shop.intent({ ...visa, confirm: true }, options);
  const again = await shop.intent({ ...visa, confirm: true }, options);

  assert.deepEqual(again, first);
  assert.equal(again.lastResponse.headers['idempotent-replayed'], 'true');
  assert.equal(again.lastResponse.idempotencyKey, options.idempotencyKey);
  assert.equal((await shop.chargesOf(first)).length, 1);
  assert.equal((await shop.stripe.paymentIntents.list()).data.length, 1);
});

flow('idempotency: a decline is an answer, and replayed', async (shop) => {
  const [intent, options] = [await shop.intent(), { idempotencyKey: fresh('key') }];
  const declined = { payment_method: 'pm_card_chargeDeclined' };
  const confirm = () => shop.stripe.paymentIntents.confirm(intent.id, declined, options);

  const first = await refusal(confirm(), StripeCardError);
  const again = await refusal(confirm(), StripeCardError);

  assert.deepEqual([again.code, again.charge], [first.code, first.charge]);
  assert.deepEqual(again.payment_intent, first.payment_intent);
  assert.equal((await shop.chargesOf(intent)).length, 1);
});

flow('idempotency: another call under the same key is an IdempotencyError', async (shop) => {
  const options = { idempotencyKey: fresh('key') };
  await shop.intent({}, options);

  const other = shop.intent({ amount: 2001 }, options);

  await refusal(other, StripeIdempotencyError, {
    type: 'StripeIdempotencyError', statusCode: 400, rawType: 'idempotency_error',
  });
});

flow('idempotency: two calls at once under one key have one answer, and one charge', async (shop) => {
  const options = { idempotencyKey: fresh('key') };
  const pay = () => shop.intent({ ...visa, confirm: true }, options);

  const [one, other] = await Promise.all([pay(), pay()]);

  assert.deepEqual(other, one);
  assert.equal((await shop.stripe.charges.list()).data.length, 1);
});

flow('idempotency: while one call runs, another under its key is told so', async (shop) => {
  const options = { idempotencyKey: fresh('key'), maxNetworkRetries: 0 };
  const pay = () => shop.intent({ ...visa, confirm: true }, options);
  await theBankTakesItsTime(shop.bankBase);

  const settled = await Promise.allSettled([pay(), pay()]);
  const [told, ...others] = settled.flatMap(({ reason }) => reason ?? []);
  const [paid] = settled.flatMap(({ value }) => value ?? []);

  assert.deepEqual(others, []);
  assert.ok(told instanceof StripeAPIError);
  assertFields(told, { statusCode: 409, code: 'idempotency_key_in_use' });
  assert.equal(told.headers['stripe-should-retry'], 'true');
  assert.equal((await pay()).id, paid.id);
  await shop.become(paid, 'succeeded');
  assert.equal((await shop.stripe.charges.list()).data.length, 1);
});

/** For the hold and for the capture: together longer than a second call waits for a first. */
async function theBankTakesItsTime(bankBase) {
  const once = { count: 1, milliseconds: 3000 };
  const body = JSON.stringify({
    hang: { ...once, operation: 'authorizations' },
    hang_after: { ...once, operation: 'captures' },
  });
  const answer = await fetch(`${bankBase}/__faults`, { method: 'POST', body });
  assert.equal(answer.status, 200);
}

/** A line to the API that behaves as `line` says for each request; also what went over it. */
async function overALine(shop, line, use) {
  const asked = [];
  const server = http.createServer(async (request, response) => {
    const parts = [];
    for await (const part of request) parts.push(part);
    asked.push(request.headers['idempotency-key']);
    const forward = () => forwarded(shop.apiBase, request, Buffer.concat(parts));
    await line(asked.length, response, forward);
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  try {
    await use({ host: '127.0.0.1', port: server.address().port }, asked);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

function forwarded(apiBase, request, body) {
  const headers = { ...request.headers };
  for (const own of ['host', 'connection', 'content-length']) delete headers[own];
  const { method, url } = request;
  return fetch(new URL(url, apiBase), { method, headers, body: body.length ? body : undefined });
}

async function pass(answer, response) {
  response.writeHead(answer.status, { 'content-type': 'application/json' });
  response.end(await answer.text());
}

flow('retries: an answer that was lost is asked for again under one key', async (shop) => {
  const answersAreLost = async (number, response, forward) => {
    const answer = await forward();
    if (number < 3) response.destroy();
    else await pass(answer, response);
  };

  await overALine(shop, answersAreLost, async (address, asked) => {
    const stripe = shop.client(shop.secret, { ...address, maxNetworkRetries: 2 });
    const paid = await stripe.paymentIntents.create({ ...price, ...visa, confirm: true });

    assert.equal(paid.status, 'succeeded');
    assert.deepEqual([asked.length, new Set(asked).size], [3, 1]);
    assert.match(asked[0], /^stripe-node-retry-/);
    assert.equal((await shop.chargesOf(paid)).length, 1);
  });
});

flow('retries: what is unavailable is asked for again, under the key that was given', async (shop) => {
  const unavailable = async (number, response, forward) => {
    if (number > 1) return pass(await forward(), response);
    response.writeHead(503, { 'content-type': 'application/json' });
    return response.end('{"error": {"type": "api_error", "message": "Later."}}');
  };

  await overALine(shop, unavailable, async (address, asked) => {
    const idempotencyKey = fresh('key');
    const stripe = shop.client(shop.secret, address);
    const paid = await stripe.paymentIntents.create(
      { ...price, ...visa, confirm: true }, { idempotencyKey },
    );

    assert.deepEqual(asked, [idempotencyKey, idempotencyKey]);
    assert.equal((await shop.chargesOf(paid)).length, 1);
  });
});

flow('retries: none where none are wanted, and the answer of before is found', async (shop) => {
  const lost = async (number, response, forward) => {
    const answer = await forward();
    if (number > 1) return pass(answer, response);
    response.writeHead(500, { 'content-type': 'application/json' });
    return response.end('{"error": {"type": "api_error", "message": "No."}}');
  };

  await overALine(shop, lost, async (address, asked) => {
    const stripe = shop.client(shop.secret, { ...address, maxNetworkRetries: 0 });
    const options = { idempotencyKey: fresh('key') };
    const pay = () => stripe.paymentIntents.create({ ...price, ...visa, confirm: true }, options);
    await refusal(pay(), StripeAPIError, { statusCode: 500 });
    assert.equal(asked.length, 1);

    const paid = await pay();

    assert.equal((await shop.stripe.charges.list()).data.length, 1);
    assert.equal(paid.status, 'succeeded');
  });
});

flow('retries: a refusal is no reason for one', async (shop) => {
  const line = async (number, response, forward) => {
    const answer = await forward();
    assert.equal(answer.headers.get('stripe-should-retry'), 'false');
    await pass(answer, response);
  };

  await overALine(shop, line, async (address, asked) => {
    const stripe = shop.client(shop.secret, { ...address, maxNetworkRetries: 5 });
    const declined = { ...price, payment_method: 'pm_card_chargeDeclined', confirm: true };
    await refusal(stripe.paymentIntents.create(declined), StripeCardError);
    await refusal(stripe.charges.retrieve('ch_nobodys'), StripeInvalidRequestError);

    assert.equal(asked.length, 2);
  });
});

flow('error: nobody listens is a StripeConnectionError', async (shop) => {
  const nobody = shop.client(shop.secret, { port: 9, maxNetworkRetries: 0 });

  await refusal(nobody.balance.retrieve(), StripeConnectionError);
});

// --- keys, errors, answers ----------------------------------------------------------------------

flow('publishable key: a method, an intent, its confirmation with the secret', async ({ browser }) => {
  const method = await browser.paymentMethods.create({ type: 'card', card });
  const intent = await browser.paymentIntents.create(price);
  const secret = { client_secret: intent.client_secret };

  const paid = await browser.paymentIntents.confirm(intent.id, {
    payment_method: method.id, ...secret,
  });

  assert.equal(paid.status, 'succeeded');
  assert.deepEqual(await browser.paymentIntents.retrieve(intent.id, secret), paid);
});

flow(
  'publishable key: not what needs a secret key, and no intent without its secret',
  async (shop) => {
    const { customers, paymentIntents } = shop.browser;
    const intent = await shop.intent();
    const forbidden = { statusCode: 403, code: 'publishable_key_not_allowed' };
    await refusal(customers.create({}), StripePermissionError, forbidden);
    await refusal(customers.list(), StripePermissionError, forbidden);
    await refusal(paymentIntents.list(), StripePermissionError, forbidden);

    for (const params of [{}, { client_secret: `${intent.id}_secret_x` }]) {
      const missing = paymentIntents.retrieve(intent.id, params);
      await refusal(missing, StripeInvalidRequestError, {
        statusCode: 404, code: 'resource_missing',
      });
    }
  },
);

flow('error: a key that is none is an AuthenticationError', async (shop) => {
  const listing = shop.client('sk_test_nobodys').customers.list();

  const error = await refusal(listing, StripeAuthenticationError, {
    type: 'StripeAuthenticationError', statusCode: 401,
  });
  assert.match(error.requestId, /^req_/);
});

flow('error: what is not there is resource_missing', async ({ stripe }) => {
  const { charges, customers, events, paymentIntents, paymentMethods, refunds } = stripe;
  for (const family of [charges, customers, events, paymentIntents, paymentMethods, refunds]) {
    await refusal(family.retrieve('pi_nobodys'), StripeInvalidRequestError, {
      statusCode: 404, code: 'resource_missing', rawType: 'invalid_request_error',
    });
  }
});

flow("error: parameters that are missing, unknown, or wrong have Stripe's codes", async (shop) => {
  const wrong = [
    [{ currency: 'usd' }, 'parameter_missing', 'amount'],
    [{ ...price, colour: 'red' }, 'parameter_unknown', 'colour'],
    [{ ...price, amount: 'ten' }, 'parameter_invalid', 'amount'],
    [{ ...price, customer: 'cus_nobodys' }, 'resource_missing', 'customer'],
  ];
  for (const [params, code, param] of wrong) {
    const refused = shop.stripe.paymentIntents.create(params);
    await refusal(refused, StripeInvalidRequestError, { code, param });
  }
});

flow('error: every class is a StripeError, with the whole answer in raw', async (shop) => {
  const error = await refusal(shop.stripe.charges.retrieve('ch_nobodys'), StripeError);

  assertFields(error, { type: 'StripeInvalidRequestError', requestId: error.raw.requestId });
  assertFields(error.raw, { code: 'resource_missing', statusCode: 404, message: error.message });
  assert.equal(error.headers['request-id'], error.requestId);
});

flow('answers: Request-Id, and Stripe-Version as it was sent', async ({ stripe }) => {
  const apiVersion = '2025-03-31.basil';

  const made = await stripe.customers.create({}, { apiVersion });

  const { requestId, statusCode, headers, apiVersion: answered } = made.lastResponse;
  assert.match(requestId, /^req_/);
  assert.deepEqual([headers['stripe-version'], answered], [apiVersion, apiVersion]);
  assert.ok(statusCode < 300);
  assert.ok(Math.abs(made.created - Date.now() / 1000) < 60);
});

flow('answers: the package tells its listeners what went over the line', async (shop) => {
  const told = [];
  shop.stripe.on('response', (event) => told.push(event));

  const made = await shop.intent();

  assert.equal(told.length, 1);
  assertFields(told[0], { method: 'POST', path: '/v1/payment_intents' });
  assert.equal(told[0].request_id, made.lastResponse.requestId);
});

flow("the package's own way past its methods: rawRequest", async (shop) => {
  const made = await shop.stripe.rawRequest('POST', '/v1/payment_intents', price);
  const found = await shop.stripe.rawRequest('GET', `/v1/payment_intents/${made.id}`);

  assertFields(found, { id: made.id, amount: 2000, status: 'requires_payment_method' });
});
