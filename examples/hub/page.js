
'use strict';

const field = id => document.getElementById(id);

// Watches an event stream. The browser reconnects by itself, except after a refusal: then this tries again, ever more
// patiently. Returns a function that stops.
function follow(url, types, onEvent, show) {
  let source, again, delay = 2;

  function connect() {
    show('connecting');
    source = new EventSource(url);
    // Events that the hub's users call "open" or "error" are no news about the connection.
    source.onopen = event => {
      if (event instanceof MessageEvent) return;
      show('live');
      delay = 2;
    };
    source.onerror = event => {
      if (event instanceof MessageEvent) return;
      if (source.readyState === EventSource.CONNECTING) return show('reconnecting');
      show('disconnected', `disconnected, next try in ${delay} s`);
      again = setTimeout(connect, delay * 1000);
      delay = Math.min(delay * 2, 60);
    };
    // An EventSource drops the events of a type that has no listener.
    for (const type of ['message', ...types]) {
      source.addEventListener(type, event => { if (event instanceof MessageEvent) onEvent(event); });
    }
  }

  connect();
  return () => {
    source.close();
    clearTimeout(again);
  };
}

const shows = id => (word, text = word) => {
  field(id).dataset.state = word;
  field(id).textContent = text;
};

function element(tag, className, text = '') {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

// --- live figures ---

const SAMPLES = 60;
const WIDTH = SAMPLES - 1;
const HEIGHT = 20;
let samples = [];
let stopFigures;

// A chart of the last minute, with the newest value at its right end.
class Chart {
  constructor(card) {
    this.figure = card.dataset.figure;
    this.title = card.querySelector('dt').textContent;
    this.number = card.querySelector('.number');
    const place = card.querySelector('.chart');
    if (!place) return;
    this.svg = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img' });
    this.area = svg('path', { class: 'area' });
    this.curve = svg('path', { class: 'curve' });
    this.svg.append(this.area, svg('path', { class: 'base', d: `M0 ${HEIGHT}H${WIDTH}` }), this.curve);
    this.most = element('span', '');
    const range = element('div', 'range');
    range.append(element('span', '', 'last minute'), this.most);
    place.append(this.svg, range);
  }

  draw() {
    const values = samples.map(sample => sample[this.figure]);
    const newest = values.at(-1).toLocaleString();
    this.number.textContent = newest;
    if (!this.svg) return;
    const most = Math.max(...values);
    const x = index => index + SAMPLES - values.length;
    const y = value => (HEIGHT * (1 - value / Math.max(most, 1))).toFixed(2);
    const points = values.map((value, index) => `${x(index)} ${y(value)}`).join('L');
    this.curve.setAttribute('d', `M${points}`);
    this.area.setAttribute('d', `M${points}V${HEIGHT}H${x(0)}Z`);
    this.most.textContent = `at most ${most.toLocaleString()}`;
    this.svg.setAttribute('aria-label', `${this.title} in the last minute: now ${newest}, ${this.most.textContent}`);
  }
}

function svg(tag, attributes) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

const charts = [...document.querySelectorAll('#figures .card')].map(card => new Chart(card));

function showFigures(event) {
  // The hub has been started anew, or this page was away for more than a minute.
  if (event.type === 'gap') return void (samples = []);
  samples.push(JSON.parse(event.data));
  samples = samples.slice(-SAMPLES);
  for (const chart of charts) chart.draw();
}

function followFigures() {
  stopFigures?.();
  samples = [];
  stopFigures = follow('/stats/live', ['gap'], showFigures, (word, text = `figures ${word}`) => {
    shows('figures-state')(word, text);
    field('figures').classList.toggle('stale', word !== 'live');
  });
}

// A hidden page needs no figures, and a browser has six connections to the hub for all its tabs.
document.onvisibilitychange = () => document.hidden ? stopFigures?.() : followFigures();
// A page that comes back from the browser's cache has lost its streams.
window.onpageshow = event => { if (event.persisted) followFigures(); };
if (!document.hidden) followFigures();

// --- the forms ---

const needsToken = document.documentElement.dataset.publishing === 'with-token';
field('with-token').hidden = !needsToken;
// An edge only watches.
const isEdge = document.documentElement.dataset.publishing === 'elsewhere';
field('send').hidden = isEdge;
field('edge').hidden = !isEdge;

const list = text => text.split(',').map(part => part.trim()).filter(part => part !== '');
const path = channels => '/' + list(channels).map(encodeURIComponent).join(',');
const watchPath = () => path(field('channels').value);

function sendPath() {
  const query = new URLSearchParams();
  if (field('type').value) query.set('event', field('type').value);
  if (field('retry').value) query.set('retry', field('retry').value);
  return path(field('channel').value) + (query.size ? '?' + query : '');
}

// In single quotes only the single quote itself is special to sh.
const quoted = text => "'" + text.replaceAll("'", "'\\''") + "'";

function showCurl() {
  const token = needsToken ? '-H "Authorization: Bearer $HUB_PUBLISH_TOKEN" ' : '';
  field('curl-watch').textContent = `curl -N ${quoted(location.origin + watchPath())}`;
  // Not --data-binary: it takes data that starts with @ for the name of a file.
  field('curl-send').textContent =
    `curl ${token}--data-raw ${quoted(field('data').value)} ${quoted(location.origin + sendPath())}`;
}
document.oninput = showCurl;
showCurl();

// --- watching ---

let stopWatching;

function stop() {
  stopWatching?.();
  shows('state')('not watching');
  field('stop').disabled = true;
}
field('stop').onclick = stop;

field('watch').onsubmit = event => {
  event.preventDefault();
  stop();
  field('stop').disabled = false;
  stopWatching = follow(watchPath(), list(field('types').value), showEvent, shows('state'));
};

function showEvent(event) {
  const about = element('div', 'about');
  about.append(element('span', '', new Date().toLocaleTimeString()), element('span', 'type', event.type));
  if (event.lastEventId) about.append(element('span', 'id', `id ${event.lastEventId}`));
  const row = element('li', '');
  row.append(about, element('div', 'data', event.data));
  field('log').prepend(row);
  if (field('log').childElementCount > 500) field('log').lastElementChild.remove();
}
field('clear').onclick = () => field('log').replaceChildren();

// --- sending ---

function showResult(className, text) {
  field('result').className = className;
  field('result').textContent = text;
}

field('send').onsubmit = async event => {
  event.preventDefault();
  showResult('', 'sending');
  const headers = needsToken ? { Authorization: `Bearer ${field('token').value}` } : {};
  try {
    const answer = await fetch(sendPath(), { method: 'POST', headers, body: field('data').value });
    if (answer.status === 204) showResult('good', `sent to ${answer.headers.get('X-Watchers')} streams`);
    else showResult('bad', `${answer.status}: ${(await answer.text()).trim()}`);
  } catch (error) {
    showResult('bad', `not sent: ${error.message}`);
  }
};

// Enter makes a new line in the data, so Ctrl+Enter sends.
field('data').onkeydown = event => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) field('send').requestSubmit();
};
