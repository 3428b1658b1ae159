// The pictures lie on top of each other; the slider says how much of the left one is seen.
for (const viewer of document.querySelectorAll(".viewer")) {
  const layers = [...viewer.querySelectorAll(".layer")];
  const slider = viewer.querySelector("input");
  const [left, right] = viewer.querySelectorAll("select");
  const name = (select) => select.options[select.selectedIndex].text;

  function show() {
    const percent = Number(slider.value);
    layers.forEach((layer, index) => {
      const isLeft = index === Number(left.value);
      const isRight = index === Number(right.value);
      layer.hidden = !isLeft && !isRight;
      layer.classList.toggle("right", isRight && !isLeft);
      const image = layer.querySelector("img");
      image.style.clipPath = isLeft && !isRight ? `inset(0 ${100 - percent}% 0 0)` : "";
    });
    // the left one lies above the right one
    layers.forEach((layer, index) => { layer.style.zIndex = index === Number(left.value) ? 1 : 0; });
    viewer.style.setProperty("--at", `${percent}%`);
    slider.setAttribute("aria-valuetext", `${percent} % ${name(left)}, the rest ${name(right)}`);
  }

  viewer.classList.add("live");
  slider.hidden = false;
  viewer.querySelector(".choice").hidden = false;
  for (const control of [slider, left, right]) control.addEventListener("input", show);
  show();
}
