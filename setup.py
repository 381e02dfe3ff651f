"""The package as setuptools sees it. Everything is said once, in settings.ini, which nbdev reads too."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
cfg = ConfigParser(delimiters=['='])
cfg.read(here / 'settings.ini', encoding='utf-8')
c = cfg['DEFAULT']
statuses = ['', '1 - Planning', '2 - Pre-Alpha', '3 - Alpha', '4 - Beta', '5 - Production/Stable']

setup(
    name=c['lib_name'], version=c['version'], description=c['description'], keywords=c['keywords'],
    author=c['author'], author_email=c['author_email'], url=c['git_url'], license='Apache-2.0', license_files=['LICENSE'],
    long_description=(here / 'README.md').read_text(encoding='utf-8'), long_description_content_type='text/markdown',
    python_requires=f">={c['min_python']},<3.14",
    packages=find_packages(include=['gekko', 'gekko.*']), package_data={'gekko': ['py.typed'], 'gekko.risk': ['scenarios.toml']}, zip_safe=False,
    package_dir={'': '.'},   # editable as a plain path, not as an import hook that costs 10 ms in every start
    install_requires=c['requirements'].split(), extras_require={'dev': c['dev_requirements'].split()},
    entry_points={'console_scripts': c['console_scripts'].split(), 'pytest11': c['pytest_plugins'].split(), 'jupyter_client.kernel_provisioners': c['kernel_provisioners'].split(), 'nbdev': [f"{c['lib_path']}={c['lib_path']}._modidx:d"]},
    classifiers=[
        f'Development Status :: {statuses[int(c["status"])]}', f'Intended Audience :: {c["audience"]}', f'Natural Language :: {c["language"]}',
        *(f'Programming Language :: Python :: 3.{n}' for n in (11, 12, 13)), 'Typing :: Typed',
    ],
)
