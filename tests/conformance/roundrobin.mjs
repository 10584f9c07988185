// A load balancer without memory: request n goes to sidecar n modulo how many there are.
//   node roundrobin.mjs LISTEN_PORT PORT PORT ...
// Headers pass untouched (Host too), bodies and event streams are piped, a client that leaves is passed on as leaving.
import http from 'node:http';

const [listen, ...ports] = process.argv.slice(2).map(Number);
let turn = 0;

const server = http.createServer((request, response) => {
  const port = ports[turn++ % ports.length];
  const onward = http.request(
    { host: '127.0.0.1', port, method: request.method, path: request.url, headers: request.headers, agent: false, setHost: false },
    (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
      answer.on('error', () => response.destroy());
    },
  );
  onward.on('error', () => response.destroy());
  response.on('close', () => onward.destroy());
  request.pipe(onward);
});
// A connection is never closed just when its client sends the next request on it.
server.keepAliveTimeout = 3_600_000;
server.listen(listen, '127.0.0.1', () => console.log(`round robin on ${listen} over ${ports.join(', ')}`));
