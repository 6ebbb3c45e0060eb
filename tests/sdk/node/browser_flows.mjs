/** What shoppers do in a browser with a shop whose page uses our JavaScript module. */

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { chromium } from 'playwright-core';

import { namedFlows } from './flows.mjs';

const challenged = '4000002500003155';
const here = fileURLToPath(new URL('.', import.meta.url));
const sdk = join(here, '../../../sdk/javascript/payments.js');
const succeeded = 'succeeded';
// What a person's browser does, and Playwright's would not: a window needs a click.
const ignoreDefaultArgs = ['--disable-popup-blocking'];

let launched;

/** One browser for all flows, each of which has cookies and storage of its own. */
function theBrowser(executablePath) {
  launched ??= chromium.launch({ executablePath, ignoreDefaultArgs, args: ['--disable-quic'] });
  return launched;
}

/** The shop's own server, which is never told of a card. */
async function opened({ shopPort, publishable, apiBase }, { settleTimeout }) {
  const told = [];
  const contents = {
    '/': ['text/html', () => readFile(join(here, 'shop.html'))],
    '/payments.js': ['text/javascript', () => readFile(sdk)],
    '/shop.json': ['application/json', () => JSON.stringify({
      publishable, apiBase, pollInterval: 50, settleTimeout,
    })],
  };
  const server = http.createServer(async (request, response) => {
    told.push(request.url);
    const [type, read] = contents[new URL(request.url, 'http://shop').pathname] ?? [];
    response.writeHead(type ? 200 : 404, { 'Content-Type': type ?? 'text/plain' });
    response.end(await read?.());
  });
  await new Promise((resolve) => { server.listen(shopPort, resolve); });
  const close = () => {
    server.closeAllConnections();
    return new Promise((resolve) => { server.close(resolve); });
  };
  return { told, close };
}

/** A shopper at the shop's page. */
class Shopper {
  constructor(page, { shopPort, screenshots }) {
    const shop = `http://127.0.0.1:${shopPort}/`;
    Object.assign(this, { page, shop, screenshots, wrong: [] });
    page.on('pageerror', (error) => this.wrong.push(error));
  }

  async goesTo(shop = this.shop) {
    await this.page.goto(shop);
    await this.page.waitForSelector('body[data-ready]');
  }

  async pays(number) {
    if (number) await this.page.fill('#number', number);
    await this.page.click('#pay');
  }

  /** Pays with a card that asks for approval; the bank's page, in a window of its own. */
  async isAsked() {
    const window = this.page.waitForEvent('popup');
    await this.pays(challenged);
    const bank = await window;
    await bank.waitForSelector('#approve');
    return bank;
  }

  async reads(outcome) {
    const says = this.page.locator('#outcome', { hasText: outcome });
    await says.waitFor({ timeout: 20_000 });
    return says.textContent();
  }

  async isPictured(name, page = this.page) {
    await page.screenshot({ path: join(this.screenshots, `${name}.png`) });
  }
}

/** In the page: a payment that nobody clicked for, for which browsers open no window. */
function payWithoutAClick(number) {
  const pay = () => {
    if (document.body?.dataset.ready === undefined) return setTimeout(pay, 20);
    document.getElementById('number').value = number;
    return document.getElementById('checkout').requestSubmit();
  };
  if (location.pathname === '/' && location.search === '') pay();
}

const { flows, flow: named } = namedFlows();

function flow(name, ...rest) {
  const [run, options] = rest.toReversed();
  named(name, async (shop) => {
    const browser = await theBrowser(shop.chromium);
    const server = await opened(shop, options ?? {});
    const context = await browser.newContext({ viewport: { width: 480, height: 560 } });
    const shopper = new Shopper(await context.newPage(), shop);
    try {
      await run(shopper);
      assert.deepEqual(shopper.wrong, []);
      assert.ok(!server.told.some((url) => url.includes(challenged) || url.includes('4242')));
    } finally {
      await context.close();
      await server.close();
    }
  });
}

export { flows };

flow('a card is paid with, from a page of another origin', async (shopper) => {
  await shopper.goesTo();

  await shopper.pays();

  await shopper.reads(succeeded);
  await shopper.isPictured('paid');
});

flow('a decline is shown, and another card pays', async (shopper) => {
  await shopper.goesTo();

  await shopper.pays('4000000000000002');
  await shopper.reads('PaymentsError card_declined');
  await shopper.pays('4242424242424242');

  await shopper.reads(succeeded);
});

flow('3-D Secure: approved in a window of the bank, which closes by itself', async (shopper) => {
  await shopper.goesTo();
  const bank = await shopper.isAsked();
  await shopper.isPictured('asked-by-the-bank', bank);
  const closed = bank.waitForEvent('close');

  await bank.click('#approve');

  await shopper.reads(succeeded);
  await closed;
  await shopper.isPictured('approved');
});

flow('3-D Secure: refused in a window of the bank, and another card pays', async (shopper) => {
  await shopper.goesTo();
  const bank = await shopper.isAsked();
  const closed = bank.waitForEvent('close');

  await bank.click('#refuse');

  await shopper.reads('authentication_required');
  await closed;
  await shopper.isPictured('refused');
  await shopper.pays('4242424242424242');
  await shopper.reads(succeeded);
});

flow(
  '3-D Secure: the window is closed undecided, which is said, and another card pays',
  { settleTimeout: 500 },
  async (shopper) => {
    await shopper.goesTo();
    const bank = await shopper.isAsked();

    await bank.close();

    await shopper.reads('PaymentsError authentication_abandoned');
    await shopper.pays('4242424242424242');
    await shopper.reads(succeeded);
  },
);

flow('3-D Secure: where windows are blocked, the page goes to the bank and comes back', async (shopper) => {
  await shopper.page.addInitScript(payWithoutAClick, challenged);

  // Only this: whatever else is asked of a page counts as a click.
  await shopper.page.goto(shopper.shop);
  await shopper.page.waitForURL((url) => url.origin !== new URL(shopper.shop).origin);

  assert.equal(shopper.page.context().pages().length, 1);
  await shopper.page.click('#approve');
  await shopper.page.waitForURL(/payment_intent=pi_/);
  await shopper.reads(succeeded);
});

flow('an origin that the API does not allow is answered nothing', async (shopper) => {
  await shopper.goesTo(shopper.shop.replace('127.0.0.1', 'localhost'));

  await shopper.pays();

  await shopper.reads('PaymentsError api_connection_error');
});
