import { expect, test } from './arena.ts'

for (const turn of [1, 2]) {
  test(`an MC and a judge work on one queue, ${turn}`, async ({ page, arena, context }) => {
    const event = await arena.seed<number>('event')
    await page.goto(await arena.seed<string>('login_link', { role: 'mc' }))
    await expect(page.getByRole('link')).toHaveText(['Tournaments', 'Summer Battle 2024'])
    await page.goto(`/event/${event}`)

    const judges = await context.browser()!.newContext({ baseURL: arena.app })
    const judge = await judges.newPage()
    await judge.goto(await arena.seed<string>('login_link', { role: 'judge' }))
    await judge.goto(`/event/${event}/queue`)
    await expect(judge.getByRole('article')).toHaveCount(4)

    await page.getByRole('button', { name: 'Start' }).first().click()
    await expect(page.locator('[data-status=ACTIVE]')).toHaveCount(1)
    await judge.reload()
    await judge.getByRole('button', { name: 'wins' }).first().click()
    await expect(judge.getByRole('article')).toHaveCount(3)
    await judges.close()
  })
}
