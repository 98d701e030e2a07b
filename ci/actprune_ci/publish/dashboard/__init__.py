"""The dashboard: a folder of pages that opens from a file share, without a network.

`data` takes what the pages show out of a store, `site` writes our own pages, `asv_site` asv's, and
`libraries` fetches the scripts that asv's pages load from elsewhere.
"""
