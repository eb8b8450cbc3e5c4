(async () => {
  // what is packed: plotly.js, and the data of large charts
  const unpack = async (block) => {
    const bytes = Uint8Array.from(atob(block.textContent), (letter) => letter.charCodeAt(0));
    const unpacking = new DecompressionStream("gzip");
    return new Response(new Blob([bytes]).stream().pipeThrough(unpacking)).text();
  };
  const read = async (block) =>
    JSON.parse(block.type === "application/gzip" ? await unpack(block) : block.textContent);
  const boxes = [...document.querySelectorAll(".plot")];
  if (!("DecompressionStream" in window)) {
    for (const box of boxes) {
      box.textContent = "This chart needs a browser of 2023 or later; the tables need none.";
    }
    return;
  }
  const library = document.createElement("script");
  library.textContent = await unpack(document.getElementById("plotly"));
  document.head.append(library);
  const plots = await Promise.all(
    boxes.map(async (box) => ({
      figure: await read(box.querySelector("script")),
      target: box.appendChild(document.createElement("div")),
    })),
  );
  const touch = matchMedia("(pointer: coarse)").matches;
  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    const colour = (_, name) => style.getPropertyValue(name).trim();
    const paint = (x) => {
      if (typeof x === "string") return x.replace(/^var\((--[a-z0-9]+)\)$/, colour);
      if (Array.isArray(x)) return x.map(paint);
      if (x === null || typeof x !== "object") return x;
      return Object.fromEntries(Object.entries(x).map(([key, value]) => [key, paint(value)]));
    };
    for (const { figure, target } of plots) {
      const { data, layout } = paint(figure);
      target.style.height = `${layout.height}px`;
      const options = { displayModeBar: false, responsive: true };
      Plotly.react(target, data, { ...layout, dragmode: touch ? false : "zoom" }, options);
    }
  };
  draw();
  for (const query of ["print", "(prefers-color-scheme: dark)"]) {
    matchMedia(query).addEventListener("change", draw);
  }
})();
