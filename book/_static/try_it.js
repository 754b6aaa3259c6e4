// The page Try it: a detector that was exported to ONNX, in the reader's own browser. No picture leaves the machine.
"use strict";

const tryIt = (() => {
  // ---- from a picture to the network's pixels -----------------------------------------------------------------------

  // Between which two pixels of a line each pixel of its resized copy lies, and how much each of the two counts, in
  // 2048ths: the rule of OpenCV's INTER_LINEAR, which computes with whole numbers. A pixel is a little square, and
  // what counts is its centre.
  function neighbours(length, size) {
    return Array.from({ length: size }, (_, index) => {
      const at = Math.min(Math.max(Math.fround(((index + 0.5) * length) / size - 0.5), 0), length - 1);
      const first = Math.floor(at), share = Math.round((at - first) * 2048);
      return { first, second: Math.min(first + 1, length - 1), shares: [2048 - share, share] };
    });
  }

  // A picture stretched to a square, as the network takes it: all of red, all of green, all of blue.
  // Only the rows that count are drawn and read, each with its lower neighbour: so a photo may be of any size.
  function resized(picture, size) {
    const columns = neighbours(picture.width, size), rows = neighbours(picture.height, size);
    const canvas = new OffscreenCanvas(picture.width, 2 * size);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingEnabled = false;
    context.fillStyle = "white"; // behind what is transparent
    context.fillRect(0, 0, canvas.width, canvas.height);
    rows.forEach(({ first, second }, y) => {
      context.drawImage(picture, 0, first, picture.width, 1, 0, 2 * y, picture.width, 1);
      context.drawImage(picture, 0, second, picture.width, 1, 0, 2 * y + 1, picture.width, 1);
    });
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data; // red, green, blue, opacity
    const planes = new Uint8Array(3 * size * size);
    for (let colour = 0; colour < 3; colour++) {
      for (let y = 0; y < size; y++) {
        const upper = 2 * y * canvas.width, lower = upper + canvas.width;
        for (let x = 0; x < size; x++) {
          const { first, second, shares } = columns[x];
          const along = row =>
            pixels[4 * (row + first) + colour] * shares[0] + pixels[4 * (row + second) + colour] * shares[1];
          const part = (row, share) => (share * (along(row) >> 4)) >> 16;
          const fourfold = part(upper, rows[y].shares[0]) + part(lower, rows[y].shares[1]);
          planes[(colour * size + y) * size + x] = (fourfold + 2) >> 2;
        }
      }
    }
    return planes;
  }

  // ---- from boxes and scores to detections --------------------------------------------------------------------------

  const area = ([left, top, right, bottom]) => Math.max(right - left, 0) * Math.max(bottom - top, 0);

  function iou(a, b) {
    const both = area([Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])]);
    return both && both / (area(a) + area(b) - both);
  }

  // NMS of one class: a box stays where no better one that stays overlaps it too much.
  function survivors(candidates, overlap) {
    const kept = [];
    for (const one of candidates) {
      if (kept.every(better => !(iou(better.box, one.box) > overlap))) kept.push(one);
    }
    return kept;
  }

  // What `detect.detect` does, from a box for every prior, 4 numbers each, and its scores for every class.
  function detections(boxes, scores, { score, overlap, topK, most }) {
    const priors = boxes.length / 4, classes = scores.length / priors, found = [];
    for (let index = 0; index < classes; index++) {
      const candidates = [];
      for (let prior = 0; prior < priors; prior++) {
        const sure = scores[prior * classes + index];
        if (sure > score) {
          candidates.push({ score: sure, label: index + 1, box: boxes.subarray(4 * prior, 4 * prior + 4) });
        }
      }
      candidates.sort((a, b) => b.score - a.score);
      found.push(...survivors(candidates.slice(0, topK), overlap));
    }
    return found.sort((a, b) => b.score - a.score).slice(0, most);
  }

  // ---- the detector -------------------------------------------------------------------------------------------------

  // The fields of a protocol buffer, which an ONNX file is: of each that has a length its number and its bytes.
  function* fields(bytes) {
    let at = 0;
    const number = () => {
      let value = 0, factor = 1, byte;
      do {
        byte = bytes[at++];
        value += (byte & 127) * factor;
        factor *= 128;
      } while (byte > 127);
      return value;
    };
    while (at < bytes.length) {
      const head = number(), kind = head % 8;
      if (kind === 0) number();
      else if (kind === 2) {
        const length = number();
        yield [Math.floor(head / 8), bytes.subarray(at, (at += length))];
      } else at += kind === 1 ? 8 : 4;
    }
  }

  // What `export` wrote into the file about its detector. onnxruntime-web does not tell it.
  function metadata(bytes) {
    const text = new TextDecoder(), METADATA = 14;
    const pairs = [...fields(bytes)].filter(([field]) => field === METADATA);
    return Object.fromEntries(pairs.map(([, pair]) => [...fields(pair)].map(([, value]) => text.decode(value))));
  }

  const here = document.currentScript ? new URL(".", document.currentScript.src).href : "";
  const runtimeFolder = `${here}vendor/onnxruntime-web/`;
  let runtime;

  function loadRuntime() {
    runtime ??= new Promise((loaded, failed) => {
      const script = document.createElement("script");
      script.src = `${runtimeFolder}ort.wasm.min.js`;
      script.onload = loaded;
      script.onerror = () => failed(new Error("onnxruntime-web does not load"));
      document.head.append(script);
    }).then(() => {
      ort.env.wasm.wasmPaths = runtimeFolder;
      ort.env.wasm.numThreads = 1; // more need headers that not every server sends
    });
    return runtime;
  }

  // A detector from the bytes of an ONNX file.
  async function load(bytes, name) {
    const about = metadata(bytes);
    if (!about.classes || !about.image_size) {
      throw new Error(`${name} does not say what it detects: write it with python -m course_lib export`);
    }
    if (about.nms === "yes") throw new Error(`${name} has its thresholds inside: export it again without --nms`);
    await loadRuntime();
    const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    const limits = { topK: Number(about.top_k), most: Number(about.max_detections) };
    return { name, session, classes: JSON.parse(about.classes), size: Number(about.image_size), limits };
  }

  // The box of every prior and its scores for every class.
  async function run(detector, picture) {
    const { session, size } = detector;
    const images = new ort.Tensor("uint8", resized(picture, size), [1, 3, size, size]);
    const { boxes, scores } = await session.run({ images });
    return { boxes: boxes.data, scores: scores.data };
  }

  // ---- the page -----------------------------------------------------------------------------------------------------

  // viz.COLOURS: colour-blind readers can tell them apart. Names are black on them, and white on the dark blue.
  const COLOURS = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"];
  const colourOf = label => COLOURS[label % COLOURS.length];

  function element(tag, attributes = {}, ...children) {
    const made = Object.assign(document.createElement(tag), attributes);
    made.append(...children);
    return made;
  }

  async function fetched(name) {
    const answer = await fetch(`${here}try_it/${name}`);
    if (!answer.ok) throw new Error(`${name} is not in this book: run make book`);
    return answer;
  }

  async function decoded(file) {
    try {
      // Upright, as a camera says in its EXIF data; colours as stored, as Python reads them.
      return await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
    } catch {
      throw new Error(`${file.name} is no picture that this browser reads`);
    }
  }

  // A box over the picture, in percent of it: it keeps its place at any width.
  function outline({ box, label, score }, classes) {
    const [left, top, right, bottom] = [...box].map(value => 100 * value);
    const name = element("span", { textContent: `${classes[label - 1]} ${score.toFixed(2)}` });
    name.style.cssText = `background: ${colourOf(label)}; color: ${colourOf(label) === "#0072B2" ? "white" : "black"}`;
    const drawn = element("div", { className: "try-it-box" }, name);
    drawn.style.cssText = `left: ${left}%; top: ${top}%; width: ${right - left}%; height: ${bottom - top}%;`;
    drawn.style.borderColor = colourOf(label);
    return drawn;
  }

  function inWords({ box, label, score }, classes, { width, height }) {
    const [left, top, right, bottom] = [...box].map((value, side) => Math.round(value * (side % 2 ? height : width)));
    const mark = element("span", { className: "try-it-mark" });
    mark.style.background = colourOf(label);
    const corners = `(${left}, ${top}) to (${right}, ${bottom})`;
    return element("li", {}, mark, `${classes[label - 1]}, score ${score.toFixed(2)}, pixels ${corners}`);
  }

  async function start(panel) {
    const part = name => panel.querySelector(`.try-it-${name}`);
    const say = text => (part("status").textContent = text);
    let contents, detector, picture, found, milliseconds;

    // One thing after the other, whatever the reader clicks meanwhile. What goes wrong is said, and the next is done.
    let waiting = Promise.resolve();
    const next = work => (waiting = waiting.then(work).catch(error => say(error.message)));

    // After a turn of the sliders: the network need not look again.
    function draw() {
      for (const name of ["score", "overlap"]) {
        part(name).closest("p").querySelector("output").textContent = Number(part(name).value).toFixed(2);
      }
      if (!found) return;
      const limits = { score: Number(part("score").value), overlap: Number(part("overlap").value), ...detector.limits };
      const objects = detections(found.boxes, found.scores, limits);
      part("boxes").replaceChildren(...objects.map(one => outline(one, detector.classes)).reverse()); // the best on top
      part("list").replaceChildren(...objects.map(one => inWords(one, detector.classes, picture.bitmap)));
      const count = objects.length === 1 ? "1 object" : `${objects.length} objects`;
      say(`${count} with a score above ${limits.score.toFixed(2)}. Looking took ${milliseconds.toFixed(0)} ms.`);
    }

    async function take(bytes, name) {
      detector = await load(bytes, name);
      const { classes, size } = detector;
      part("detector").textContent =
        `Detector: ${name}, ${size} × ${size} pixels, ${classes.length} classes: ${classes.join(", ")}.`;
    }

    async function look() {
      if (!detector) {
        say("Fetching the detector, once …");
        await take(new Uint8Array(await (await fetched(contents.model)).arrayBuffer()), contents.model);
      }
      say("Looking …");
      await new Promise(done => setTimeout(done)); // lets the browser show that
      const begin = performance.now();
      found = await run(detector, picture.bitmap);
      milliseconds = performance.now() - begin;
      draw();
    }

    async function show(file, words) {
      const bitmap = await decoded(file);
      if (picture) {
        picture.bitmap.close();
        URL.revokeObjectURL(picture.address);
      }
      [picture, found] = [{ bitmap, address: URL.createObjectURL(file) }, undefined];
      part("boxes").replaceChildren();
      part("list").replaceChildren();
      part("shown").replaceChildren(element("img", { src: picture.address, alt: words }));
      await look();
    }

    async function open(file) {
      press(null);
      if (!file.name.toLowerCase().endsWith(".onnx")) return show(file, `Your picture ${file.name}.`);
      say(`Opening ${file.name} …`);
      await take(new Uint8Array(await file.arrayBuffer()), file.name);
      if (picture) await look();
      else say(`${file.name} is open. Choose a picture.`);
    }

    const press = chosen => panel.querySelectorAll("button").forEach(one => (one.ariaPressed = one === chosen));

    function testPicture({ file, shows }, index) {
      const words = `Test picture ${index + 1}: ${shows}.`;
      const image = element("img", { src: `${here}try_it/${file}`, alt: words });
      const button = element("button", { type: "button", ariaPressed: false }, image);
      button.onclick = () => {
        press(button);
        next(async () => show(await (await fetched(file)).blob(), words));
      };
      return element("li", {}, button);
    }

    if (location.protocol === "file:") {
      return say(
        "A page that is opened as a file may not fetch the detector. " +
          "Run make serve, and open http://localhost:8000/book/try_it.html"
      );
    }
    try {
      contents = await (await fetched("contents.json")).json();
    } catch (error) {
      return say(error.message);
    }
    if (!contents.runtime) {
      return say("onnxruntime-web could not be had when this book was built. To try again: make try-it book");
    }
    part("pictures").replaceChildren(...contents.pictures.map(testPicture));
    for (const name of ["score", "overlap"]) part(name).oninput = () => next(draw);
    part("file").onchange = event => {
      const [file] = event.target.files;
      if (file) next(() => open(file));
      event.target.value = ""; // so that the same file can be chosen again
    };
    addEventListener("dragover", event => event.preventDefault());
    addEventListener("drop", event => {
      event.preventDefault(); // else the browser leaves the page for the file
      const [file] = event.dataTransfer.files;
      if (file) next(() => open(file));
    });
    part("panel").hidden = false;
    return say("Choose a picture.");
  }

  const panel = document.getElementById("try-it-page");
  if (panel) start(panel);

  return { COLOURS, decoded, resized, detections, metadata };
})();
