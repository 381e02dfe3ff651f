"""google-cloud-aiplatform, unchanged but for its address: upload, create, deploy, predict, list, undeploy, delete; and what it makes of refusals.

Reads a sandbox's card (JSON) from stdin, with `uri` for the artefact and `window` for a prediction; writes what it saw as one JSON object.
"""
import json
import sys
import time
import urllib.request

from google.api_core import exceptions
from google.cloud import aiplatform
from google.oauth2 import service_account

card = json.load(sys.stdin)
credentials = service_account.Credentials.from_service_account_file(card['credentials'], scopes=['https://www.googleapis.com/auth/cloud-platform'])
aiplatform.init(project=card['project'], location=card['region'], api_endpoint=card['rest'], api_transport='rest', credentials=credentials)
seen = {}


def control(path, body):
    """Arms faults, moves the clock, tells the truth: the one thing here that is not the client's."""
    ask = urllib.request.Request(f'{card["control"]}/{path}', json.dumps(body).encode(), {'X-Sandbox': card['secret']})
    return json.loads(urllib.request.urlopen(ask, timeout=10).read())


def refused(act):
    try: act()
    except exceptions.GoogleAPICallError as e: return [type(e).__name__, e.message]
    return None


model = aiplatform.Model.upload(display_name='eth', artifact_uri=card['uri'], serving_container_image_uri='us-docker.pkg.dev/p/gekko/far:1',
                                serving_container_predict_route='/predict', serving_container_health_route='/health', labels={'gekko_artefact': 'ab12'}, model_id='eth-1')
seen['model'] = [model.resource_name, model.display_name, model.version_id, dict(model.labels), model.uri]
seen['twice'] = refused(lambda: aiplatform.Model.upload(display_name='eth', artifact_uri=card['uri'], serving_container_image_uri='i', model_id='eth-1'))
endpoint = aiplatform.Endpoint.create(display_name='eth', labels={'gekko_artefact': 'ab12'}, endpoint_id='eth-1')
seen['endpoint'] = [endpoint.resource_name, endpoint.display_name, endpoint.traffic_split]
seen['too early'] = refused(lambda: endpoint.predict(instances=[{'y': card['window']}]))
model.deploy(endpoint=endpoint, machine_type='n1-standard-2', min_replica_count=1, max_replica_count=1, deployed_model_display_name='ab12')
seen['deployed'] = [[d.id, d.display_name, d.model, d.dedicated_resources.machine_spec.machine_type, d.dedicated_resources.min_replica_count] for d in endpoint.list_models()]
seen['split'] = endpoint.traffic_split
said = endpoint.predict(instances=[{'y': card['window']}, {'y': card['window'][::-1]}])
seen['prediction'] = [said.predictions, said.deployed_model_id, said.model_resource_name, said.model_version_id]
seen['listed'] = [[e.name for e in aiplatform.Endpoint.list(filter=f'labels.gekko_artefact="{x}"')] for x in ('ab12', 'cd34')] + [[m.name for m in aiplatform.Model.list()]]
seen['bad'] = refused(lambda: endpoint.predict(instances=[{'z': [1.0]}]))
seen['in use'] = refused(lambda: aiplatform.Model(model.resource_name).delete())
for code in (429, 500, 503, 504):
    control('faults', [{'what': 'status', 'code': code}])
    seen[str(code)] = refused(lambda: endpoint.predict(instances=[{'y': card['window']}]))
control('faults', [{'what': 'expire'}])
time.sleep(1.1)        # what it signs in the same second is the same token
seen['renewed'] = endpoint.predict(instances=[{'y': card['window']}]).deployed_model_id == said.deployed_model_id
control('advance', {'s': 1800})
seen['busy'] = control('truth', {})
endpoint.undeploy_all()
seen['empty'] = endpoint.list_models()
endpoint.delete()
model.delete()
seen['gone'] = [refused(lambda: aiplatform.Endpoint(endpoint.resource_name).list_models()), aiplatform.Model.list(), aiplatform.Endpoint.list()]
seen['truth'] = control('truth', {})
seen['version'] = aiplatform.__version__
print(json.dumps(seen))
