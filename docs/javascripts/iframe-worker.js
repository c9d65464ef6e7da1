// Browsers start no worker from the disk. There, the search runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.onmessage = this.onerror = null
      this.waiting = []
      const frame = document.createElement("iframe")
      frame.hidden = true
      frame.srcdoc = `<script>
        const worker = parent.frameWorkers[${window.frameWorkers.push(this) - 1}]
        var postMessage = (data) => worker.receive(data)
        var importScripts = (...urls) => Promise.all(urls.map((url) => new Promise((resolve, reject) => {
          const script = document.createElement("script")
          Object.assign(script, { src: url, onload: resolve, onerror: reject })
          document.body.appendChild(script)
        })))
      <\/script><body><script src="${new URL(url, location)}"><\/script>`
      frame.addEventListener("load", () => {
        this.scope = frame.contentWindow
        this.waiting.splice(0).forEach((data) => this.postMessage(data))
      })
      document.body.appendChild(frame)
    }

    receive(data) {
      const event = new MessageEvent("message", { data })
      this.onmessage?.(event)
      this.dispatchEvent(event)
    }

    postMessage(data) {
      if (this.scope) this.scope.dispatchEvent(new this.scope.MessageEvent("message", { data }))
      else this.waiting.push(data)
    }
  }
  window.frameWorkers = []
}
