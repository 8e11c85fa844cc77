import { defineConfig } from '@playwright/test'

export default defineConfig({
  fullyParallel: true,
  workers: 2,
  use: {
    launchOptions: { executablePath: process.env.CHROMIUM, args: process.env.CHROMIUM ? ['--no-sandbox'] : [] },
  },
})
