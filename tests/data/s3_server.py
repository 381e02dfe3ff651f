"""A small S3: buckets in memory behind the real protocol, with signatures (SigV4), ranges, listings and conditional puts.

Enough for a Delta table: what isn't here (multipart uploads, versions, ACLs) answers 501 and fails the test that needs it.
Protocol: AWS S3 API reference, 2006-03-01.
"""
import hashlib
import hmac
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape

KEY, SECRET, REGION = 'AKTEST', 'a-secret', 'us-east-1'


def signature(handler, url, secret):
    """The SigV4 signature that this request should carry (AWS General Reference, Signature Version 4)."""
    fields = dict(part.strip().split('=', 1) for part in handler.headers['Authorization'].split(' ', 1)[1].split(','))
    scope = fields['Credential'].split('/', 1)[1]
    signed = fields['SignedHeaders'].split(';')
    query = '&'.join(f'{quote(k, safe="-_.~")}={quote(v, safe="-_.~")}' for k, v in sorted(parse_qsl(url.query, keep_blank_values=True)))
    headers = ''.join(f'{h}:{" ".join(handler.headers[h].split())}\n' for h in signed)
    request = '\n'.join([handler.command, url.path, query, headers, ';'.join(signed), handler.headers['x-amz-content-sha256']])
    text = '\n'.join(['AWS4-HMAC-SHA256', handler.headers['x-amz-date'], scope, hashlib.sha256(request.encode()).hexdigest()])
    key = ('AWS4' + secret).encode()
    for part in scope.split('/'): key = hmac.digest(key, part.encode(), 'sha256')
    return hmac.digest(key, text.encode(), 'sha256').hex(), fields['Signature']


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    # headers and body leave in two writes; with Nagle's algorithm every answer would wait for an acknowledgement
    disable_nagle_algorithm = True

    def log_message(self, *args): pass

    def answer(self, status, body=b'', **headers):
        self.send_response(status)
        for k, v in {'Content-Length': str(len(body)), **headers}.items(): self.send_header(k.replace('_', '-'), v)
        self.end_headers()
        if self.command != 'HEAD': self.wfile.write(body)

    def error(self, status, code):
        self.answer(status, f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'.encode(), Content_Type='application/xml')

    def handle_one(self):
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        url = urlsplit(self.path)
        wanted, found = signature(self, url, SECRET) if self.headers.get('Authorization') else ('', None)
        if wanted != found: return self.error(403, 'SignatureDoesNotMatch')
        if self.headers.get('x-amz-content-sha256') not in ('UNSIGNED-PAYLOAD', hashlib.sha256(body).hexdigest()): return self.error(400, 'XAmzContentSHA256Mismatch')
        bucket, _, key = unquote(url.path).lstrip('/').partition('/')
        query = {k: v[0] for k, v in parse_qs(url.query, keep_blank_values=True).items()}
        with self.server.lock: objects = self.server.buckets.get(bucket)
        if objects is None: return self.error(404, 'NoSuchBucket')
        if self.command == 'GET' and 'list-type' in query: return self.listing(bucket, objects, query)
        if query or not key: return self.error(501, 'NotImplemented')
        return getattr(self, f'{self.command.lower()}_object')(objects, key, body)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = handle_one

    def put_object(self, objects, key, body):
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        with self.server.lock:
            if self.headers.get('If-None-Match') == '*' and key in objects: return self.error(412, 'PreconditionFailed')
            if (match := self.headers.get('If-Match')) and (key not in objects or objects[key][1] != match): return self.error(412, 'PreconditionFailed')
            objects[key] = (body, tag, formatdate(usegmt=True))
        return self.answer(200, ETag=tag)

    def get_object(self, objects, key, _):
        if key not in objects: return self.error(404, 'NoSuchKey')
        body, tag, when = objects[key]
        asked = self.headers.get('Range')
        if not asked: return self.answer(200, body, ETag=tag, Last_Modified=when)
        lo, hi = asked.removeprefix('bytes=').split('-')
        first, last = (int(lo), min(int(hi or len(body)), len(body) - 1)) if lo else (max(len(body) - int(hi), 0), len(body) - 1)
        return self.answer(206, body[first:last + 1], ETag=tag, Last_Modified=when, Content_Range=f'bytes {first}-{last}/{len(body)}')

    def head_object(self, objects, key, _): return self.get_object(objects, key, _)

    def delete_object(self, objects, key, _):
        with self.server.lock: objects.pop(key, None)
        return self.answer(204)

    def post_object(self, objects, key, _): return self.error(501, 'NotImplemented')

    def listing(self, bucket, objects, query):
        prefix, delimiter, after = query.get('prefix', ''), query.get('delimiter', ''), query.get('continuation-token') or query.get('start-after', '')
        with self.server.lock: keys = sorted(k for k in objects if k.startswith(prefix) and k > after)
        rest = [(k, k[len(prefix):].find(delimiter) if delimiter else -1) for k in keys]
        folders = sorted({k[:len(prefix) + i + 1] for k, i in rest if i >= 0})
        files = [k for k, i in rest if i < 0]
        page = files[:1000]
        rows = ''.join(f'<Contents><Key>{escape(k)}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>{objects[k][1]}</ETag><Size>{len(objects[k][0])}</Size></Contents>' for k in page)
        more = len(files) > len(page)
        tail = f'<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>' if more else ''
        common = ''.join(f'<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>' for f in folders)
        self.answer(200, f'<?xml version="1.0"?><ListBucketResult><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>{tail}{rows}{common}</ListBucketResult>'.encode(), Content_Type='application/xml')


class S3Server:
    """Serves on a free port of 127.0.0.1 until `close`; `options` are what a client needs."""

    def __init__(self, *buckets):
        self.http = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.http.lock, self.http.buckets, self.http.daemon_threads = threading.Lock(), {b: {} for b in buckets}, True
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={'poll_interval': 0.05})
        self.thread.start()

    @property
    def options(self):
        return {'AWS_ENDPOINT_URL': f'http://127.0.0.1:{self.http.server_port}', 'AWS_ACCESS_KEY_ID': KEY, 'AWS_SECRET_ACCESS_KEY': SECRET, 'AWS_REGION': REGION, 'AWS_ALLOW_HTTP': 'true'}

    def close(self):
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()
