#!/usr/bin/env node
// Starts `portoser bridge` for clients whose configuration says "command": "node".
//
//   PORTOSER_SSE_URL   the server's event stream; default http://localhost:8000/mcp/sse
//   PORTOSER_TOKEN     its API token, where it asks for one
//   PORTOSER_PYTHON    the Python that Portoser is installed in; default: this checkout's .venv, else `portoser` on PATH
//
// The pipes are handed on as they are: this process never touches a message.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const url = process.env.PORTOSER_SSE_URL ?? process.argv[2] ?? "http://localhost:8000/mcp/sse";
const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");

function commands() {
  const bridge = ["-m", "portoser", "bridge", url];
  if (process.env.PORTOSER_PYTHON) return [[process.env.PORTOSER_PYTHON, bridge]];
  const local = [join(root, ".venv", "bin", "python"), join(root, ".venv", "Scripts", "python.exe")];
  return [...local.filter(existsSync).map((python) => [python, bridge]), ["portoser", ["bridge", url]]];
}

function start([[command, args], ...others]) {
  const child = spawn(command, args, { stdio: "inherit", windowsHide: true });
  child.on("error", (error) => {
    if (others.length > 0) return start(others);
    console.error(`portoser bridge: cannot start ${command}: ${error.message}.`);
    console.error("Install Portoser (uv tool install portoser), or set PORTOSER_PYTHON to the Python that has it.");
    process.exitCode = 127;
  });
  child.on("exit", (code, signal) => {
    process.exitCode = signal ? 128 + (constants.signals[signal] ?? 0) : (code ?? 1);
  });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
    process.on(signal, () => child.kill(signal));
  }
}

start(commands());
