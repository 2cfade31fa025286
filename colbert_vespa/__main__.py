from colbert_vespa.cli import main

main()
