// How a program here tells what came of each thing that its client's users do: one JSON object on stdout.

const PATIENCE = 60_000; // milliseconds until what a client waits for will never come

export async function report(uses) {
  const told = {};
  for (const [name, use] of Object.entries(uses)) {
    try {
      told[name] = { answer: await Promise.race([use(), late()]) };
    } catch (error) {
      told[name] = { error: `${error.name}: ${error.message} ${error.cause?.message ?? ''}` };
    }
  }
  console.log(JSON.stringify(told));
  process.exit(); // whatever a use that was late has left open
}

function late() {
  return new Promise((_, reject) => setTimeout(reject, PATIENCE, new Error('nothing came of it')).unref());
}
