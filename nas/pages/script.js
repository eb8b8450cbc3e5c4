(() => {
  const plots = [...document.querySelectorAll(".plot")].map((box) => ({
    figure: JSON.parse(box.querySelector("script").textContent),
    target: box.appendChild(document.createElement("div")),
  }));
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
