/** Counterfoil's API for browsers and Node: one module, no dependencies. Types are in payments.d.ts. */

const VERSION = '2025-09-01';
const LONGEST_WAIT_MS = 8000;
// After an approval the money is taken in a moment; whoever waits is not told of that moment. A bank's
// answer, too, takes one, and the window in which it was given may be gone before.
const SETTLE_MS = 10000;
const REPEATED_STATUSES = [500, 503];

/** What the API refused, or that it did not answer; then `status` is null. */
export class PaymentsError extends Error {
  constructor(message, { status = null, body = {}, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'PaymentsError';
    this.status = status;
    this.type = body.type ?? 'api_connection_error';
    this.code = body.code ?? null;
    this.decline_code = body.decline_code ?? null;
    this.param = body.param ?? null;
    this.requestId = body.request_id ?? null;
    this.paymentIntent = body.payment_intent ?? null;
  }
}

export class PaymentsSDK {
  #key;
  #base;
  #fetch;
  #maxRetries;
  #timeout;
  #pollInterval;
  #retryWait;
  #settleTimeout;

  constructor(key, options = {}) {
    if (typeof key !== 'string' || key === '') {
      throw new TypeError('PaymentsSDK needs an API key: new PaymentsSDK("pk_test_…")');
    }
    this.#key = key;
    this.#base = (options.apiBase ?? 'http://127.0.0.1:8080').replace(/\/+$/, '');
    this.#fetch = options.fetch ?? globalThis.fetch.bind(globalThis);
    this.#maxRetries = options.maxRetries ?? 2;
    this.#timeout = options.timeout ?? 30000;
    this.#pollInterval = options.pollInterval ?? 500;
    this.#retryWait = options.retryWait ?? 500;
    this.#settleTimeout = options.settleTimeout ?? SETTLE_MS;
  }

  /** A card, to be paid with. */
  async createPaymentMethod(params, options) {
    return this.#post('/v1/payment_methods', params, options);
  }

  /** What is to be paid; with `confirm`, and the first attempt. */
  async createPaymentIntent(params, options) {
    return this.#post('/v1/payment_intents', params, options);
  }

  /** The intent as it is now. */
  async retrievePaymentIntent(clientSecret) {
    const query = new URLSearchParams({ client_secret: clientSecret });
    return this.#perform('GET', `${intentPath(clientSecret)}?${query}`);
  }

  /** An attempt, with `params.payment_method` or the intent's own. */
  async confirmPayment(clientSecret, params = {}, options = {}) {
    const body = { ...params, client_secret: clientSecret };
    return this.#post(`${intentPath(clientSecret)}/confirm`, body, options);
  }

  /** Shows the bank's page, and waits until the shopper has decided: `{ paymentIntent, error? }`. */
  async handleCardAction(clientSecret, options = {}) {
    const { open = openPage } = options;
    const intent = await this.retrievePaymentIntent(clientSecret);
    if (intent.status !== 'requires_action') return resultOf(intent);
    const page = await open(intent.next_action.redirect_to_url.url);
    try {
      return resultOf(await this.#decided(clientSecret, options, page));
    } finally {
      page?.close?.();
    }
  }

  /** Waits for the same, where the bank has sent the shopper back to `return_url`; shows nothing. */
  async resumeCardAction(clientSecret, options = {}) {
    return resultOf(await this.#decided(clientSecret, options));
  }

  /** The intent once the shopper has decided, and the money that follows at once has been taken. */
  async #decided(clientSecret, { timeout = 600000, signal }, page) {
    const deadline = Date.now() + timeout;
    let settledBy = Infinity;
    for (;;) {
      signal?.throwIfAborted();
      const intent = await this.retrievePaymentIntent(clientSecret);
      const isAsked = intent.status === 'requires_action';
      if (!isAsked && intent.status !== 'processing') return intent;
      if (!isAsked || page?.closed === true) {
        settledBy = Math.min(settledBy, Date.now() + this.#settleTimeout);
      }
      if (isAsked && Date.now() >= Math.min(deadline, settledBy)) throw undecided(intent, page);
      if (!isAsked && Date.now() >= settledBy) return intent;
      await sleep(this.#pollInterval);
    }
  }

  #post(path, params, options = {}) {
    return this.#perform('POST', path, params ?? {}, options.idempotencyKey ?? newKey());
  }

  /** Sends it until it is answered, under one idempotency key. */
  async #perform(method, path, body, idempotencyKey) {
    for (let attempt = 0; ; attempt += 1) {
      const isLast = attempt >= this.#maxRetries;
      try {
        const { status, document } = await this.#sent(method, path, body, idempotencyKey);
        if (status < 400 && document !== null) return document;
        if (isLast || !isBetterRepeated(status, document)) throw refused(status, document);
      } catch (error) {
        if (error instanceof PaymentsError) throw error;
        if (isLast) throw new PaymentsError('The API did not answer.', { cause: error });
      }
      await sleep(waitMs(this.#retryWait, attempt));
    }
  }

  async #sent(method, path, body, idempotencyKey) {
    const headers = { Authorization: `Bearer ${this.#key}`, 'X-API-Version': VERSION };
    if (body !== undefined) headers['Content-Type'] = 'application/json';
    if (idempotencyKey !== undefined) headers['Idempotency-Key'] = idempotencyKey;
    const stopping = new AbortController();
    const timer = setTimeout(() => stopping.abort(), this.#timeout);
    try {
      const response = await this.#fetch(this.#base + path, {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        credentials: 'omit',
        signal: stopping.signal,
      });
      return { status: response.status, document: parsed(await response.text()) };
    } finally {
      clearTimeout(timer);
    }
  }
}

/** A refusal is an outcome, not an exception. */
function resultOf(intent) {
  const error = intent.status === 'requires_payment_method' ? intent.last_payment_error : null;
  return error ? { paymentIntent: intent, error } : { paymentIntent: intent };
}

/** The intent still waits for its shopper, who may be asked again. */
function undecided(intent, page) {
  const [message, code] = page?.closed
    ? ['The shopper closed the page undecided.', 'authentication_abandoned']
    : ['The shopper has not decided in time.', 'authentication_timeout'];
  return new PaymentsError(message, { body: { type: 'card_error', code, payment_intent: intent } });
}

function intentPath(clientSecret) {
  const id = String(clientSecret).split('_secret_')[0];
  if (!/^pi_[0-9a-z]+$/.test(id) || id === clientSecret) {
    throw new TypeError('an intent is named by its client_secret: pi_…_secret_…');
  }
  return `/v1/payment_intents/${id}`;
}

/** Opens the bank's page in a window of its own; where browsers block that, this page goes there. */
function openPage(url) {
  const { window } = globalThis;
  if (window?.open === undefined) {
    throw new PaymentsError('There is no window to show the page in: give the option `open`.', {
      body: { type: 'invalid_request_error', code: 'no_window' },
    });
  }
  const page = window.open(url, '_blank', 'popup,width=480,height=640');
  if (page === null) {
    window.location.assign(url);
  } else {
    page.opener = null;
  }
  return page;
}

/** Nothing was begun, or the first request is still at work. */
function isBetterRepeated(status, document) {
  const inProgress = document?.error?.code === 'request_in_progress';
  return REPEATED_STATUSES.includes(status) || (status === 409 && inProgress);
}

function refused(status, document) {
  const body = document?.error;
  if (body === null || typeof body !== 'object') {
    return new PaymentsError(`The API answered ${status}, and nothing that can be understood.`, {
      status,
      body: { type: 'api_error' },
    });
  }
  return new PaymentsError(body.message ?? 'The API refused.', { status, body });
}

function parsed(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === 'object' ? value : null;
  } catch {
    return null;
  }
}

/** A key that no other call has. */
function newKey() {
  const bytes = new Uint8Array(16);
  if (globalThis.crypto?.getRandomValues) {
    globalThis.crypto.getRandomValues(bytes);
  } else {
    bytes.forEach((_, place) => {
      bytes[place] = Math.floor(Math.random() * 256);
    });
  }
  return `js-${Date.now()}-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}

function waitMs(first, attempt) {
  return Math.min(first * 2 ** attempt, LONGEST_WAIT_MS) * (0.5 + Math.random() / 2);
}

function sleep(ms) {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}

export default PaymentsSDK;
