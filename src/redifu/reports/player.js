"use strict";
// Plays utterances from the recordings beside the page.
function startPlayer(utterances) {
  const film = document.createElement("video"); // plays sound as well
  film.className = "film";
  film.preload = "none";
  film.playsInline = true;
  const show = () => { film.hidden = !film.videoWidth; };
  const button = makeButton("play", () => (film.paused ? play() : film.pause()), "Play");
  const status = make("span", "soft");
  status.setAttribute("role", "alert");
  const box = make("div", "player", film, button, status);
  box.hidden = true;
  show();
  let turn = null;

  const pathOf = ({ audio, video }) => audio ?? video;
  const spanOf = ({ start, end }) => [start ?? 0, end ?? Infinity];

  function choose(chosen) {
    if (chosen === turn) return;
    film.pause();
    turn = chosen;
    status.textContent = "";
    box.hidden = !pathOf(utterances[turn]);
  }

  function play(again = false) {
    const path = pathOf(utterances[turn]);
    if (!path) return;
    // Encoded, because a file name may hold the signs of an address: ? # % :
    const address = path.split("/").map(encodeURIComponent).join("/");
    const [start, end] = spanOf(utterances[turn]);
    const moved = film.getAttribute("src") !== address;
    if (moved) film.src = address;
    if (moved || again || film.ended || film.currentTime < start || film.currentTime > end - 0.05) film.currentTime = start;
    for (const other of document.querySelectorAll("video")) if (other !== film) other.pause();
    film.play().catch(() => {}); // "error" reports what matters; the rest is a click that came in between
  }

  // "timeupdate" comes four times a second, which is too seldom to stop at the end of a word.
  function stopAtEnd() {
    const left = spanOf(utterances[turn])[1] - film.currentTime;
    if (left <= 0) film.pause();
    else if (left < 0.5 && !film.paused) setTimeout(stopAtEnd, 1000 * left);
  }

  film.addEventListener("timeupdate", stopAtEnd);
  for (const name of ["loadedmetadata", "resize"]) film.addEventListener(name, show);
  for (const name of ["play", "pause"]) film.addEventListener(name, () => { button.textContent = film.paused ? "Play" : "Pause"; });
  film.addEventListener("error", () => {
    film.pause();
    status.replaceChildren("Cannot play ", bdi(pathOf(utterances[turn])), ". It must stay in this place, seen from the page, and in a format that the browser plays.");
  });
  // A click on the utterance that plays pauses it; any other starts it from the beginning.
  return { box, choose, playing: () => !film.paused, restart: () => (film.paused ? play(true) : film.pause()) };
}
