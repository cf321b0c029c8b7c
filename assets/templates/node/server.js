// Answers every request with a line of text. Node's own modules are all there is.
const http = require("node:http");

http
  .createServer((request, response) => {
    response.setHeader("Content-Type", "text/plain; charset=utf-8");
    response.end(`Hello from Node ${process.versions.node} in a microVM.\n`);
  })
  // All addresses: the guest is reached from outside of it.
  .listen(8080, "0.0.0.0");
