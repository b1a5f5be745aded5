// Runs Python in a thread of its own, so that the page stays usable and a program that hangs can be ended.
import { loadPyodide } from "./pyodide/pyodide.mjs";

const text = async (name) => (await fetch(new URL(name, import.meta.url))).text();
const send = (kind, value) => postMessage({ kind, value });

async function load() {
  const python = await loadPyodide({ indexURL: new URL("./pyodide/", import.meta.url).href });
  const library = await (await fetch(new URL("./threepipe.zip", import.meta.url))).arrayBuffer();
  python.unpackArchive(library, "zip", { extractDir: "/lib/threepipe-live" });
  python.setStdout({ batched: (line) => send("output", line + "\n") });
  python.setStderr({ batched: (line) => send("output", line + "\n") });
  python.runPython("import sys; sys.path.insert(0, '/lib/threepipe-live'); import threepipe");
  const recorder = python.globals.get("dict")();
  python.runPython(await text("./recorder.py"), { globals: recorder });
  send("ready", python.runPython("f'Python {sys.version.split()[0]}, threepipe {threepipe.__version__}'"));
  return { python, recorder };
}

const loaded = load().catch((error) => send("failed", String(error.message ?? error)));

onmessage = async ({ data }) => {
  const { python, recorder } = await loaded;
  let failed = false;
  try {
    const names = python.globals.get("dict")();
    names.set("__name__", "__main__");
    await python.runPythonAsync(data, { globals: names, filename: "program.py" });
  } catch (error) {
    failed = true;
    const lines = String(error.message ?? error).split("\n");
    const start = lines.findIndex((line) => line.includes('"program.py"'));
    send("output", (start < 0 ? lines : ["Traceback (most recent call last):", ...lines.slice(start)]).join("\n"));
  }
  const steps = recorder.get("take")();
  send("done", { failed, steps: JSON.parse(steps) });
};
