import { defineConfig } from "vite";

export default defineConfig({
  base: "./",
  build: { outDir: "dist", emptyOutDir: true, target: "es2022", chunkSizeWarningLimit: 250 },
  server: { proxy: { "/api": process.env.FORETIDE_DASHBOARD ?? "http://127.0.0.1:8084" } },
});
