import type { Page } from '@playwright/test'
import { type Arena, expect, test } from './arena.ts'

type Event = { tournament: number; battles: number[] }

async function logIn(page: Page, arena: Arena, role: string): Promise<void> {
  await page.goto('/auth/login')
  await page.getByLabel('Your e-mail address').fill(`${role}@battle-d.example`)
  await page.getByRole('button', { name: 'Send me a link' }).click()
  await expect(page.getByRole('heading')).toHaveText('Look into your mailbox')
  await page.goto(await arena.seed<string>('letter', { to: `${role}@battle-d.example` }))
  await expect(page.getByRole('banner')).toContainText(`(${role})`)
}

test('a battle is started, and leaves the queue that staff look at', async ({ page, arena, context }) => {
  const { tournament } = await arena.seed<Event>('event', { performers: 8 })
  const staff = await context.browser()!.newContext({ baseURL: arena.app })
  const queue = await staff.newPage()
  await logIn(queue, arena, 'staff')
  await queue.goto(`/event/${tournament}/queue`)
  await expect(queue.getByRole('article')).toHaveCount(4)

  await logIn(page, arena, 'mc')
  await page.goto(`/event/${tournament}`)
  await page.getByRole('button', { name: 'Start' }).first().click()
  await expect(page.getByRole('region', { name: 'On the floor' }).getByRole('article')).toHaveCount(1)

  await queue.reload()
  await expect(queue.locator('[data-status=ACTIVE]')).toHaveCount(1)
  await staff.close()
  const changed = (await arena.changes()).filter((change) => change.table === 'battles')
  expect(changed.map((change) => change.after.status)).toContain('ACTIVE')
})

test('the board is brought up to date by HTMX', async ({ page, arena }) => {
  const { tournament, battles } = await arena.seed<Event>('event', { performers: 4 })
  await logIn(page, arena, 'mc')
  await page.goto(`/event/${tournament}`)
  await expect(page.getByText('Nobody dances now.')).toBeVisible()
  const answer = await page.request.post(`/battles/${battles[0]}/start`) // somebody else's hand
  expect(answer.ok()).toBeTruthy()
  await expect(page.getByRole('region', { name: 'On the floor' }).getByRole('article')).toBeVisible({
    timeout: 10_000,
  })
})

for (const turn of [1, 2, 3]) {
  test(`no test sees another one's tournament, ${turn}`, async ({ page, arena }) => {
    await page.goto('/tournaments')
    await expect(page.getByText('There is no tournament yet.')).toBeVisible()
    await arena.seed<Event>('event')
    await page.reload()
    await expect(page.getByText('Summer Battle 2024')).toBeVisible()
  })
}
