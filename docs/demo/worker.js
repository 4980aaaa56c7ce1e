// The worker that computes, behind ONNX Runtime in one script: it is sent files once, and then
// inputs of a model by name.
const sessions = {};

onmessage = async ({data}) => {
  try {
    if (data.wasm) {
      ort.env.wasm.wasmBinary = data.wasm;
      ort.env.wasm.numThreads = 1;  // threads need headers that neither a file nor most sites have
    } else if (data.model) {
      sessions[data.name] = await ort.InferenceSession.create(data.model, {logSeverityLevel: 3});
    } else {
      const inputs = Object.fromEntries(Object.entries(data.inputs).map(
        ([name, [values, shape]]) => [name, new ort.Tensor("float32", values, shape)]));
      const outputs = await sessions[data.name].run(inputs);
      const named = Object.fromEntries(Object.entries(outputs).map(
        ([name, {data, dims}]) => [name, {data, shape: [...dims]}]));
      postMessage({id: data.id, outputs: named});
      return;
    }
    postMessage({id: data.id});
  } catch (problem) {
    postMessage({id: data.id, problem: String(problem.message || problem)});
  }
};
