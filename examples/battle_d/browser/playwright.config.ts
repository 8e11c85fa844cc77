import { defineConfig } from '@playwright/test'

export default defineConfig({
  fullyParallel: true,
  workers: 2,
  use: {
    screenshot: 'only-on-failure',
    // A browser of the system's, where it is not Playwright's own.
    launchOptions: { executablePath: process.env.CHROMIUM, args: process.env.CHROMIUM ? ['--no-sandbox'] : [] },
  },
})
