// How a program here tells what came of each thing that its client's users do: one JSON object on stdout.

export async function report(uses) {
  const told = {};
  for (const [name, use] of Object.entries(uses)) {
    try {
      told[name] = { answer: await use() };
    } catch (error) {
      told[name] = { error: `${error.name}: ${error.message} ${error.cause?.message ?? ''}` };
    }
  }
  console.log(JSON.stringify(told));
}
