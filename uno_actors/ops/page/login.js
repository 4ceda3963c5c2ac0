// Logs in by the token, or by the code behind the # of a one-time link, which the browser sends to no server by itself.
const form = document.getElementById("login");
const wrong = document.getElementById("wrong");

async function logIn(given) {
  wrong.textContent = "";
  const answer = await fetch("api/login", {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Uno-Actors": "page" },
    body: JSON.stringify(given),
  });
  if (answer.ok) {
    location.replace("./");
    return;
  }
  const problem = await answer.json().catch(() => ({}));
  wrong.textContent = `Not logged in: ${problem.detail ?? answer.status}.`;
  document.getElementById("token").select();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  logIn({ token: new FormData(form).get("token") });
});

const code = location.hash.slice(1);
if (code) {
  history.replaceState(null, "", location.pathname); // not in the history, where it would be of no use
  logIn({ code });
}
