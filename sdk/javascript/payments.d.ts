/** Counterfoil's API for browsers and Node. Amounts are in minor units; currencies in lower case. */

export type IntentStatus =
  | 'requires_payment_method'
  | 'requires_confirmation'
  | 'requires_action'
  | 'processing'
  | 'requires_capture'
  | 'succeeded'
  | 'canceled';

export type Metadata = Record<string, string | number | boolean>;

export interface Address {
  line1?: string | null;
  line2?: string | null;
  city?: string | null;
  state?: string | null;
  postal_code?: string | null;
  country?: string | null;
}

export interface BillingDetails {
  name?: string | null;
  email?: string | null;
  phone?: string | null;
  address?: Address | null;
}

export interface CardParams {
  number: string;
  exp_month: number;
  exp_year: number;
  cvc?: string;
}

export interface PaymentMethodParams {
  type: 'card';
  card: CardParams | { token: string };
  billing_details?: BillingDetails;
  metadata?: Metadata;
}

export interface ConfirmParams {
  payment_method?: string;
  payment_method_data?: PaymentMethodParams;
  /** Where the bank's page sends the shopper afterwards. */
  return_url?: string;
  cvc?: string;
}

export interface PaymentIntentParams extends ConfirmParams {
  amount: number;
  currency: string;
  capture_method?: 'automatic' | 'automatic_async' | 'manual';
  confirm?: boolean;
  confirmation_method?: 'automatic' | 'manual';
  customer?: string;
  description?: string;
  metadata?: Metadata;
  payment_method_types?: string[];
  receipt_email?: string;
}

export interface Card {
  brand: string;
  last4: string;
  exp_month: number;
  exp_year: number;
  fingerprint: string | null;
  funding: string;
  country: string | null;
}

export interface PaymentMethod {
  id: string;
  object: 'payment_method';
  type: 'card';
  card: Card;
  customer: string | null;
  created: number;
  metadata: Metadata;
  [field: string]: unknown;
}

export interface ErrorBody {
  type: string;
  code: string | null;
  message: string;
  decline_code?: string;
  param?: string;
  [field: string]: unknown;
}

export interface PaymentIntent {
  id: string;
  object: 'payment_intent';
  amount: number;
  amount_capturable: number;
  amount_received: number;
  client_secret: string;
  created: number;
  currency: string;
  description: string | null;
  last_payment_error: ErrorBody | null;
  latest_charge: string | null;
  metadata: Metadata;
  next_action: {
    type: 'redirect_to_url';
    redirect_to_url: { url: string; return_url: string | null };
  } | null;
  payment_method: string | null;
  status: IntentStatus;
  [field: string]: unknown;
}

export interface Options {
  /** Where the API is; http://127.0.0.1:8080 if nothing is said. */
  apiBase?: string;
  fetch?: typeof globalThis.fetch;
  /** How often a call that got no answer is repeated; 2 if nothing is said. */
  maxRetries?: number;
  /** Milliseconds before the first retry; twice as long before the next, and so on. */
  retryWait?: number;
  /** Milliseconds for one request; 30 000 if nothing is said. */
  timeout?: number;
  /** Milliseconds between two looks at an intent that waits for its shopper. */
  pollInterval?: number;
  /**
   * Milliseconds that an approved payment is waited for while it is `processing`, and a decision while
   * the window is closed; 10 000 if nothing is said.
   */
  settleTimeout?: number;
}

export interface CallOptions {
  /** The same key for the same call, also after this program was started anew. */
  idempotencyKey?: string;
}

export interface WaitOptions {
  /** Milliseconds that the shopper has; ten minutes if nothing is said. */
  timeout?: number;
  signal?: AbortSignal;
}

export interface ActionOptions extends WaitOptions {
  /**
   * Shows the bank's page to the shopper. What it returns is closed in the end, if it can be; where it
   * says that it is `closed` before, the shopper is taken to have gone.
   */
  open?: (url: string) => unknown;
}

export interface ActionResult {
  paymentIntent: PaymentIntent;
  /** The shopper refused, or the bank did. */
  error?: ErrorBody;
}

export class PaymentsError extends Error {
  /** Of the answer, or null where there was none. */
  readonly status: number | null;
  readonly type: string;
  readonly code: string | null;
  readonly decline_code: string | null;
  readonly param: string | null;
  readonly requestId: string | null;
  readonly paymentIntent: PaymentIntent | null;
}

export class PaymentsSDK {
  constructor(key: string, options?: Options);
  createPaymentMethod(params: PaymentMethodParams, options?: CallOptions): Promise<PaymentMethod>;
  createPaymentIntent(params: PaymentIntentParams, options?: CallOptions): Promise<PaymentIntent>;
  retrievePaymentIntent(clientSecret: string): Promise<PaymentIntent>;
  confirmPayment(
    clientSecret: string,
    params?: ConfirmParams,
    options?: CallOptions,
  ): Promise<PaymentIntent>;
  handleCardAction(clientSecret: string, options?: ActionOptions): Promise<ActionResult>;
  resumeCardAction(clientSecret: string, options?: WaitOptions): Promise<ActionResult>;
}

export default PaymentsSDK;
