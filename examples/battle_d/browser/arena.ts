// A test's part of `arena serve`: each worker starts the app on a database of its own, and each
// test has a level, which is taken back when its pages are closed.
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { expect, test as base } from '@playwright/test'

export type Change = {
  table: string
  kind: 'inserted' | 'updated' | 'deleted'
  before: Record<string, unknown>
  after: Record<string, unknown>
}

export class Arena {
  constructor(readonly app: string, private control: string, private token: string) {}

  /** Call a function of tests/for_browsers.py, which commits what it writes. */
  async seed<T>(name: string, given: object = {}): Promise<T> {
    return JSON.parse(await this.ask('POST', `/seed/${name}`, given))
  }

  /** What this test has changed so far, row by row. */
  async changes(): Promise<Change[]> {
    return JSON.parse(await this.ask('GET', '/changes')).changes
  }

  async ask(method: 'GET' | 'POST', path: string, given?: object): Promise<string> {
    const headers = { Authorization: `Bearer ${this.token}` }
    const body = given && JSON.stringify(given)
    const answer = await fetch(this.control + path, { method, headers, body })
    const text = await answer.text()
    if (!answer.ok) {
      const told = JSON.parse(text)
      throw new Error(`${method} ${path}: ${told.error ?? told.problems.join('\n\n')}`)
    }
    return text
  }
}

export const test = base.extend<{ arena: Arena }, { server: Arena }>({
  server: [
    async ({}, use, info) => {
      const token = randomBytes(16).toString('hex')
      const log = openSync(`arena-${info.workerIndex}.log`, 'w')
      const server = spawn('arena', ['serve', '--seeds', 'tests.for_browsers'], {
        cwd: '..',
        env: { ...process.env, ARENA_SERVE_TOKEN: token },
        stdio: ['ignore', 'pipe', log],
      })
      closeSync(log)
      const ended = once(server, 'exit')
      const line = once(createInterface({ input: server.stdout! }), 'line')
      const [first] = await Promise.race([line, ended])
      if (typeof first !== 'string') throw new Error(`arena serve: see arena-${info.workerIndex}.log`)
      const { app, control } = JSON.parse(first)
      await use(new Arena(app, control, token))
      server.kill()
      await ended
    },
    { scope: 'worker' },
  ],

  baseURL: async ({ server }, use) => use(server.app),

  arena: [
    async ({ server }, use, info) => {
      await server.ask('POST', '/level/enter', { name: info.titlePath.join(' > ') })
      await use(server)
      if (info.status !== info.expectedStatus) {
        const body = JSON.parse(await server.ask('GET', '/story')).story
        await info.attach('what this test changed', { body, contentType: 'text/plain' })
      }
      await server.ask('POST', '/level/leave') // fails where the level had a problem
    },
    { auto: true },
  ],

  // The pages load HTMX from elsewhere; here it is the package's.
  context: async ({ context }, use) => {
    const path = 'node_modules/htmx.org/dist/htmx.min.js'
    const headers = { 'Access-Control-Allow-Origin': '*' }
    await context.route('https://unpkg.com/htmx.org@*/**', (route) => route.fulfill({ path, headers }))
    await use(context)
  },
})

export { expect }
