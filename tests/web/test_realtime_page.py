"""Real Chromium as a client of the Realtime API: a websocket with its key in the subprotocol, and WebRTC."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aioice.ice
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Playwright
from tests.web.driver import launch, tone
from tests.web.real_server import RealServer

pytestmark = pytest.mark.browser

KEY = "sk-of-the-page-and-long-enough"
MICROPHONE_HZ = 440
"""What the scripted speech to text hears as a question."""

SCRIPT = """
const within = (promise, what) => Promise.race([promise, new Promise((_, failed) =>
  setTimeout(() => failed(new Error(what + ': ' + JSON.stringify(seen))), 12000))]);
const seen = [];

// Events by type, whatever carries them.
function hub() {
  const waiting = [];
  return {
    events: [],
    take(text) {
      const event = JSON.parse(text);
      seen.push(event.type);
      this.events.push(event);
      for (const each of [...waiting]) if (each.kind === event.type) {
        waiting.splice(waiting.indexOf(each), 1);
        each.came(event);
      }
    },
    next(kind) {
      return within(new Promise((came) => waiting.push({kind, came})), kind);
    },
  };
}

function sine(hz, ms, silenceMs, rate = 24000) {
  const pcm = new Int16Array(rate * (ms + silenceMs) / 1000);
  for (let n = 0; n < rate * ms / 1000; n++) pcm[n] = 16000 * Math.sin(2 * Math.PI * hz * n / rate);
  return pcm;
}

const base64 = (pcm) => {
  let text = '';
  for (const byte of new Uint8Array(pcm.buffer)) text += String.fromCharCode(byte);
  return btoa(text);
};

// Plays PCM in the page's own audio and tells its length and loudest sample.
async function play(deltas) {
  const bytes = deltas.map((d) => Uint8Array.from(atob(d), (c) => c.charCodeAt(0)));
  const all = new Uint8Array(bytes.reduce((n, b) => n + b.length, 0));
  bytes.reduce((at, b) => (all.set(b, at), at + b.length), 0);
  const samples = Float32Array.from(new Int16Array(all.buffer), (s) => s / 32768);
  const context = new AudioContext({sampleRate: 24000});
  const buffer = context.createBuffer(1, samples.length, 24000);
  buffer.copyToChannel(samples, 0);
  const source = new AudioBufferSourceNode(context, {buffer});
  const ear = new AnalyserNode(context, {fftSize: 2048});
  source.connect(ear).connect(context.destination);
  let peak = 0;
  const listening = setInterval(() => {
    const now = new Float32Array(2048);
    ear.getFloatTimeDomainData(now);
    peak = Math.max(peak, ...now.map(Math.abs));
  }, 20);
  const ended = new Promise((done) => { source.onended = done; });
  source.start();
  await within(ended, 'the voice to end');
  clearInterval(listening);
  await context.close();
  return {ms: samples.length / 24, peak};
}

async function websocket(key) {
  const protocols = ['realtime', 'openai-insecure-api-key.' + key];
  const address = location.origin.replace('http', 'ws') + '/v1/realtime?model=gpt-realtime';
  const socket = new WebSocket(address, protocols);
  const events = hub();
  socket.onmessage = (message) => events.take(message.data);
  const send = (event) => socket.send(JSON.stringify(event));
  await events.next('session.created');
  const ask = {type: 'message', role: 'user',
    content: [{type: 'input_text', text: 'what time is it'}]};
  send({type: 'conversation.item.create', item: ask});
  send({type: 'response.create', response: {output_modalities: ['text']}});
  const text = await events.next('response.output_text.done');
  await events.next('response.done');
  const pcm = sine(440, 640, 1000);
  for (let at = 0; at < pcm.length; at += 2400) {
    send({type: 'input_audio_buffer.append', audio: base64(pcm.slice(at, at + 2400))});
  }
  const said = await events.next('response.output_audio_transcript.done');
  const voice = await play(
    events.events.filter((e) => e.type === 'response.output_audio.delta').map((e) => e.delta));
  socket.close(1000);
  return {protocol: socket.protocol, text: text.text, said: said.transcript, ...voice};
}

function refused(key) {
  return within(new Promise((done) => {
    const socket = new WebSocket(location.origin.replace('http', 'ws') + '/v1/realtime',
      ['realtime', 'openai-insecure-api-key.' + key]);
    socket.onclose = (event) => done(event.code);
  }), 'the refusal');
}

async function webrtc(key) {
  const post = (path, token, type, body) => fetch(path, {method: 'POST', body,
    headers: {Authorization: 'Bearer ' + token, 'Content-Type': type}});
  const made = await post('/v1/realtime/client_secrets', key, 'application/json',
    JSON.stringify({session: {type: 'realtime', instructions: 'Be short.'}}));
  const secret = (await made.json()).value;
  const off = {echoCancellation: false, noiseSuppression: false, autoGainControl: false};
  const stream = await navigator.mediaDevices.getUserMedia({audio: off});
  const pc = new RTCPeerConnection();
  pc.addTrack(stream.getTracks()[0], stream);
  const voice = new Audio();
  voice.autoplay = true;
  pc.ontrack = (event) => { voice.srcObject = event.streams[0]; };
  const channel = pc.createDataChannel('oai-events');
  const events = hub();
  channel.onmessage = (message) => events.take(message.data);
  await pc.setLocalDescription(await pc.createOffer());
  const answer = await post('/v1/realtime/calls', secret, 'application/sdp', pc.localDescription.sdp);
  await pc.setRemoteDescription({type: 'answer', sdp: await answer.text()});
  const created = await events.next('session.created');
  const started = events.next('output_audio_buffer.started');
  const stopped = events.next('output_audio_buffer.stopped');
  const done = (await events.next('response.done')).response;
  await started;
  await stopped;
  let energy = 0;
  for (let n = 0; n < 100 && !energy; n++) {
    await new Promise((soon) => setTimeout(soon, 50));
    for (const each of (await pc.getStats()).values()) {
      if (each.type === 'inbound-rtp' && each.kind === 'audio') energy = each.totalAudioEnergy;
    }
  }
  const path = answer.headers.get('Location');
  const over = new Promise((closed) => { channel.onclose = closed; });
  const hangup = await post(path + '/hangup', secret, 'text/plain', '');
  await within(over, 'the channel to close');
  pc.close();
  return {status: answer.status, path, instructions: created.session.instructions, energy,
    said: done.output[0].content[0].transcript, hangup: hangup.status, bare: events.events.some(
      (e) => e.type === 'response.output_audio.delta')};
}
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealServer]:
    addresses = ["127.0.0.1"]  # ICE stays on this machine
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: addresses)
    server = RealServer(tmp_path, security__api_key=KEY)
    yield server
    server.close()


@pytest.fixture(scope="module")
def talker(playwright: Playwright, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser whose microphone asks for the time, again and again."""
    path = tmp_path_factory.mktemp("microphone") / "question.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        quiet = np.zeros(48_000, "<i2").tobytes()
        file.writeframes(quiet + tone(48_000, 0.64, MICROPHONE_HZ) + 5 * quiet)
    browser = launch(
        playwright,
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={path}",
        "--allow-loopback-in-peer-connection",
    )
    yield browser
    browser.close()


@pytest.fixture
def page(talker: Browser, server: RealServer) -> Iterator[Page]:
    context = talker.new_context(bypass_csp=True)  # the script is the test's
    page = context.new_page()
    page.goto(f"{server.url}health")  # the server's own origin
    page.add_script_tag(content=SCRIPT)
    yield page
    context.close()


def test_a_websocket_with_its_key_in_the_subprotocol(page: Page) -> None:
    found: dict[str, Any] = page.evaluate("key => websocket(key)", KEY)
    assert found["protocol"] == "realtime"
    assert found["text"] == found["said"] == "It is noon."
    assert found["ms"] == pytest.approx(300, abs=80)
    assert found["peak"] > 0.02
    assert page.evaluate("key => refused(key)", "sk-wrong") == 1006


def test_webrtc_with_a_microphone(page: Page) -> None:
    found: dict[str, Any] = page.evaluate("key => webrtc(key)", KEY)
    assert (found["status"], found["hangup"]) == (201, 200)
    assert found["path"].startswith("/v1/realtime/calls/rtc_")
    assert found["instructions"] == "Be short."
    assert found["said"] == "It is noon."
    assert found["energy"] > 0
    assert not found["bare"]
