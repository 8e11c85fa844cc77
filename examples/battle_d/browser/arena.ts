// Each worker starts `arena serve`, with a database of its own. Each test has a level, which
// pytest-arena restores at the test's end.
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { expect, test as base } from '@playwright/test'

class Arena {
  constructor(readonly app: string, private control: string, private token: string) {}

  /** Call a function of tests/data.py, and commit what it writes. */
  async seed<T>(name: string, given: object = {}): Promise<T> {
    return this.ask('POST', `/seed/${name}`, given)
  }

  async ask(method: 'GET' | 'POST', path: string, given?: object): Promise<any> {
    const headers = { Authorization: `Bearer ${this.token}` }
    const body = given && JSON.stringify(given)
    const response = await fetch(this.control + path, { method, headers, body })
    const answer = await response.json()
    if (!response.ok) throw new Error(`${path}: ${answer.error ?? answer.problems.join('\n')}`)
    return answer
  }
}

export const test = base.extend<{ arena: Arena }, { server: Arena }>({
  server: [
    async ({}, use) => {
      const token = randomBytes(16).toString('hex')
      const server = spawn('arena', ['serve', '--seeds', 'tests.data'], {
        cwd: '..',
        env: { ...process.env, ARENA_SERVE_TOKEN: token },
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      const [line] = await once(createInterface({ input: server.stdout! }), 'line')
      const { app, control } = JSON.parse(line)
      await use(new Arena(app, control, token))
      server.kill()
      await once(server, 'exit')
    },
    { scope: 'worker', timeout: 120_000 }, // the first one builds the template
  ],

  baseURL: async ({ server }, use) => use(server.app),

  arena: [
    async ({ server }, use, info) => {
      await server.ask('POST', '/level/enter', { name: info.title })
      await use(server)
      if (info.status !== info.expectedStatus) {
        const { story } = await server.ask('GET', '/story')
        await info.attach('what this test changed', { body: story, contentType: 'text/plain' })
      }
      await server.ask('POST', '/level/leave') // fails if the level had a problem
    },
    { auto: true },
  ],
})

export { expect }
